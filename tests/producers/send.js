// Sends the events on standard input with Inngest's SDK, which finds the gateway by INNGEST_* variables; prints the ids.
import { Inngest } from "inngest";

let text = "";
for await (const chunk of process.stdin) text += chunk;
const { ids } = await new Inngest({ id: "producer" }).send(JSON.parse(text));
console.log(JSON.stringify(ids));
