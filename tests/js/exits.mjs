// A program that closes its client exits: no timer and no socket remains.
import { client, until } from "./live.mjs";

const made = client({ after() {} });
const room = await made.join("exit", { userId: "ann" });
made.drop(10);
await until(() => room.status === "reconnecting");
await until(() => room.status === "connected");
room.update(1);
made.close();
console.log(room.status, made.status);
