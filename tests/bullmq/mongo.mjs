// The demo's commands for MongoDB, because Debian and Ubuntu have no package of mongosh.
//
// node mongo.mjs start-replica-set PORT            makes a fresh mongod the only member of rs0 and waits
//                                                  until it accepts writes
// node mongo.mjs insert PORT DATABASE COLLECTION   inserts the documents on stdin, one per line in
//                                                  MongoDB's extended JSON
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { BSON, MongoClient } from "mongodb";

const commands = {
  "start-replica-set": async (client, host) => {
    const admin = client.db("admin");
    await admin.command({ replSetInitiate: { _id: "rs0", members: [{ _id: 0, host }] } });
    const deadline = Date.now() + 20_000;
    while (!(await admin.command({ hello: 1 })).isWritablePrimary) {
      if (Date.now() > deadline) throw new Error(`${host} has not become primary`);
      await sleep(50);
    }
  },
  insert: async (client, _host, database, collection) => {
    const documents = [];
    for await (const line of createInterface({ input: process.stdin })) {
      if (line.trim()) documents.push(BSON.EJSON.parse(line));
    }
    await client.db(database).collection(collection).insertMany(documents);
  },
};

const [name, port, ...rest] = process.argv.slice(2);
if (!commands[name] || !port) {
  console.error("usage: mongo.mjs start-replica-set PORT | insert PORT DATABASE COLLECTION");
  process.exit(2);
}
const host = `127.0.0.1:${port}`;
const client = new MongoClient(`mongodb://${host}/?directConnection=true`, { serverSelectionTimeoutMS: 20_000 });
try {
  await commands[name](client, host, ...rest);
} finally {
  await client.close();
}
