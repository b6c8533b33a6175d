// What drives an LND client for Node.js: lines of JSON in and out, as driver.py says.

import { createInterface } from "node:readline";

const CODES = ["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"];
CODES.push("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED");
CODES.push("OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED");

const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

/** Say that a message has arrived. */
export function arrived(peer, type, payload) {
  say({ event: { peer, message: type.toString(16).padStart(4, "0") + payload } });
}

/** Say that a peer has connected or disconnected. */
export function changed(peer, online) {
  say({ event: { peer, message: online ? "01" : "00" } });
}

/** Return what a failed call of grpc-js says. */
export function failure(error) {
  const [details] = error.metadata?.get("grpc-status-details-bin") ?? [];
  return { code: CODES[error.code], text: error.details, details: details?.toString("hex") };
}

/** Make the calls that are asked for, until there are no more. */
export async function serve(calls, explain = failure) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { call, arguments: given } = JSON.parse(line);
    try {
      say({ outcome: { code: "OK", ...(await calls[call](given)) } });
    } catch (error) {
      say({ outcome: explain(error) });
    }
  }
  process.exit(0);
}
