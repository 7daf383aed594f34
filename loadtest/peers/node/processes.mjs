// A process per core on one port, as such services are run.
import cluster from "node:cluster";
import { availableParallelism } from "node:os";

export function onEveryCore(serve) {
  const processes = Number(process.env.PROCESSES ?? availableParallelism());
  if (processes === 1 || cluster.isWorker) return serve();
  cluster.on("exit", () => process.exit(1));
  for (let index = 0; index < processes; index++) cluster.fork();
}
