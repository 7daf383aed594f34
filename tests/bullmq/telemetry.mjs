// BullMQ's OpenTelemetry add-on with an exporter that passes each finished span to a function.
import { SpanKind } from "@opentelemetry/api";
import { NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { BullMQOtel } from "bullmq-otel";

export function telemetry(report) {
  const exporter = {
    export(spans, done) {
      for (const span of spans) report(describe(span));
      done({ code: 0 });
    },
    async shutdown() {},
  };
  const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  provider.register(); // with the W3C propagators, which are the default
  return new BullMQOtel({ tracerName: "worker" });
}

function describe(span) {
  const { traceId, traceState } = span.spanContext();
  return {
    name: span.name,
    kind: SpanKind[span.kind],
    traceId,
    traceState: traceState?.serialize(),
    parentSpanId: span.parentSpanContext?.spanId,
    attributes: span.attributes,
  };
}
