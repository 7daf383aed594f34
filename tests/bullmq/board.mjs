// Prints what bull-board shows of a queue: the answer of its API to its own page, as one JSON
// object.
//
// node board.mjs STATUS [--redis URL] [--queue NAME] [--prefix PREFIX] [--bullmq PACKAGE]
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { connect, queueFlags } from "./which-queue.mjs";

const require = createRequire(import.meta.url);
const { createBullBoard } = require("@bull-board/api");
const { BullMQAdapter } = require("@bull-board/api/bullMQAdapter");

/** A web server to bull-board, of which only the routes are wanted. */
class Routes {
  setQueues(queues) {
    this.queues = queues;
    return this;
  }
  setApiRoutes(routes) {
    this.api = routes;
    return this;
  }
}
for (const other of ["setViewsPath", "setStaticPath", "setUIConfig", "setEntryRoute", "setErrorHandler"]) {
  Routes.prototype[other] = function () {
    return this;
  };
}

const { values: flags, positionals } = parseArgs({ allowPositionals: true, options: queueFlags });
const { Queue } = await import(flags.bullmq);
const redis = connect(flags, 3);
const queue = new Queue(flags.queue, { connection: redis, prefix: flags.prefix, skipMetasUpdate: true });
try {
  const serverAdapter = new Routes();
  createBullBoard({ queues: [new BullMQAdapter(queue)], serverAdapter });
  const route = serverAdapter.api.find(({ route }) => [route].flat().includes("/api/queues"));
  const query = { activeQueue: flags.queue, status: positionals[0], page: "1", jobsPerPage: "100" };
  const { body } = await route.handler({ queues: serverAdapter.queues, query, params: {}, headers: {} });
  console.log(JSON.stringify(body));
} finally {
  await queue.close();
  redis.disconnect();
}
