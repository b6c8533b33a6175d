// The npm package `@lightningpolar/lnd-api`, an LND client: `client.mjs HOST:PORT CERTIFICATE MACAROON`.

import { readFileSync } from "node:fs";
import { LndClient } from "@lightningpolar/lnd-api";
import { arrived, changed, serve } from "../lnd.mjs";

const [socket, certificate, macaroon] = process.argv.slice(2);
const client = LndClient.create({ socket, macaroon, cert: readFileSync(certificate).toString("hex") });

await serve({
  async send({ peer, message }) {
    await client.lightning.sendCustomMessage({
      peer: Buffer.from(peer, "hex"),
      type: parseInt(message.slice(0, 4), 16),
      data: Buffer.from(message.slice(4), "hex"),
    });
  },
  async subscribe() {
    client.lightning.subscribeCustomMessages().on("data", ({ peer, type, data }) => {
      arrived(peer.toString("hex"), type, data.toString("hex"));
    });
  },
  async events() {
    client.lightning.subscribePeerEvents().on("data", (event) => {
      changed(event.pubKey, event.type === "PEER_ONLINE");
    });
  },
  async info() {
    const info = await client.lightning.getInfo();
    return { text: `${info.alias} ${info.identityPubkey} ${info.numPeers}` };
  },
  async peers() {
    const { peers } = await client.lightning.listPeers();
    return { text: peers.map((peer) => peer.pubKey).join(" ") };
  },
  async connect({ peer, host }) {
    await client.lightning.connectPeer({ addr: { pubkey: peer, host } });
  },
  async disconnect({ peer }) {
    await client.lightning.disconnectPeer({ pubKey: peer });
  },
  async node({ peer }) {
    const { node } = await client.lightning.getNodeInfo({ pubKey: peer });
    return { text: `${node.alias} ${node.addresses[0].addr}` };
  },
  async version() {
    return { text: (await client.versioner.getVersion()).version };
  },
  async state() {
    return { text: (await client.state.getState()).state };
  },
  async channels() {
    await client.lightning.listChannels();
  },
});
