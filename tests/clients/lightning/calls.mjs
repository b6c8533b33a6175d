// The calls of the npm packages `lightning` and `ln-service`, which have the same methods:
// `client.mjs HOST:PORT CERTIFICATE MACAROON`, the macaroon as hex digits. They always use TLS.

import { readFileSync } from "node:fs";
import { arrived, changed, failure, serve } from "../lnd.mjs";

export async function run(lightning) {
  const [socket, certificate, macaroon] = process.argv.slice(2);
  const cert = readFileSync(certificate).toString("base64");
  const { lnd } = lightning.authenticatedLndGrpc({ socket, cert, macaroon });
  const open = lightning.unauthenticatedLndGrpc({ socket, cert });

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
      const messages = lightning.subscribeToPeerMessages({ lnd });
      messages.on("message_received", ({ public_key, type, message }) => arrived(public_key, type, message));
    },
    async events() {
      const peers = lightning.subscribeToPeers({ lnd });
      peers.on("connected", ({ public_key }) => changed(public_key, true));
      peers.on("disconnected", ({ public_key }) => changed(public_key, false));
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
    async disconnect({ peer }) {
      await lightning.removePeer({ lnd, public_key: peer });
    },
    async node({ peer }) {
      const { alias, sockets } = await lightning.getNode({ lnd, public_key: peer, is_omitting_channels: true });
      return { text: `${alias} ${sockets[0].socket}` };
    },
    async version() {
      return { text: (await lightning.getWalletVersion({ lnd })).build_tags.join(" ") };
    },
    async state() {
      return { text: String((await lightning.getWalletStatus({ lnd: open.lnd })).is_ready) };
    },
    async channels() {
      await lightning.getChannels({ lnd });
    },
  };

  await serve(calls, (error) => {
    const [code, text, { err } = {}] = error;
    return err === undefined ? { code: `its own ${code}`, text } : failure(err);
  });
}
