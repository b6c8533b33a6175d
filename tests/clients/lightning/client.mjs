// The npm package `lightning`, an LND client: `client.mjs HOST:PORT CERTIFICATE RUNE`.
//
// It always uses TLS. driver.py says which lines go in and out.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import * as lightning from "lightning";

const [socket, certificate, rune] = process.argv.slice(2);
const { lnd } = lightning.authenticatedLndGrpc({
  socket,
  cert: readFileSync(certificate).toString("base64"),
  macaroon: Buffer.from(rune).toString("hex"),
});
const CODES = ["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"];
CODES.push("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED");
CODES.push("OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED");

const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

const calls = {
  async send({ peer, message }) {
    await lightning.sendMessageToPeer({
      lnd,
      public_key: peer,
      type: parseInt(message.slice(0, 4), 16),
      message: message.slice(4),
    });
  },
  async subscribe() {
    lightning.subscribeToPeerMessages({ lnd }).on("message_received", ({ public_key, type, message }) => {
      say({ event: { peer: public_key, message: type.toString(16).padStart(4, "0") + message } });
    });
  },
  async info() {
    const { alias, public_key, peers_count } = await lightning.getWalletInfo({ lnd });
    return { text: `${alias} ${public_key} ${peers_count}` };
  },
  async peers() {
    const { peers } = await lightning.getPeers({ lnd });
    return { text: peers.map((peer) => peer.public_key).join(" ") };
  },
  async connect({ peer, host }) {
    await lightning.addPeer({ lnd, public_key: peer, socket: host, retry_count: 1 });
  },
};

function failure(error) {
  const [code, text, { err } = {}] = error;
  if (err === undefined) return { code: `its own ${code}`, text };
  const [details] = err.metadata.get("grpc-status-details-bin");
  return { code: CODES[err.code], text: err.details, details: details?.toString("hex") };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { call, arguments: given } = JSON.parse(line);
  try {
    say({ outcome: { code: "OK", ...(await calls[call](given)) } });
  } catch (error) {
    say({ outcome: failure(error) });
  }
}
process.exit(0);
