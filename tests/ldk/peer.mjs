// LDK as a Lightning peer: it sends numbered custom messages, and says what it has received.
//
// usage: node peer.mjs COUNT listen
//        node peer.mjs COUNT dial NODE_ID HOST PORT
//
// Each line that it prints is a JSON object: its id and port at the start, at the end what it has received.
// test_ldk.py has the other side, and the same numbers.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import * as ldk from "lightningdevkit";
import { NodeLDKNet } from "lightningdevkit-node-net";

const [count, how, nodeId, host, port] = process.argv.slice(2);
const COUNT = Number(count);
const TYPES = [32769, 37913, 40000, 65535];
const SIZES = [0, 1, 100, 1000, 65533];

// The bindings greet on stdout, which is for what the test reads.
console.log = console.error;
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

const require = createRequire(import.meta.url);
await ldk.initializeWasmFromBinary(readFileSync(require.resolve("lightningdevkit/liblightningjs.wasm")));

// The bindings give and take types as signed 16 bit.
const signed = (type) => (type << 16) >> 16;
const unsigned = (type) => type & 0xffff;

function message(number) {
  const payload = new Uint8Array(4 + SIZES[number % SIZES.length]).fill((number + 1) % 256);
  new DataView(payload.buffer).setUint32(0, number);
  // The longest message has a type of 2 bytes and 65,533 bytes after it.
  return { type: TYPES[number % TYPES.length], payload: payload.subarray(0, 65533) };
}

const asType = ({ type, payload }) =>
  ldk.Type.new_impl({ type_id: () => signed(type), debug_str: () => "custom", write: () => payload });

const received = createHash("sha256");
let receivedCount = 0;
let sentCount = 0;
let peerId = null;
let finished = false;

function take(type, payload) {
  const header = Buffer.alloc(6);
  header.writeUInt16BE(type, 0);
  header.writeUInt32BE(payload.length, 2);
  received.update(header).update(payload);
  receivedCount += 1;
  finishWhenDone();
}

const handler = ldk.CustomMessageHandler.new_impl(
  {
    handle_custom_message(msg, _sender) {
      take(unsigned(msg.type_id()), msg.write());
      return ldk.Result_NoneLightningErrorZ.constructor_ok();
    },
    get_and_clear_pending_msg() {
      const batch = [];
      while (peerId !== null && sentCount < COUNT && batch.length < 20) {
        batch.push(ldk.TwoTuple_PublicKeyTypeZ.constructor_new(peerId, asType(message(sentCount))));
        sentCount += 1;
      }
      return batch;
    },
    peer_connected(id, _init, _inbound) {
      peerId = id;
      setImmediate(pump);
      return ldk.Result_NoneNoneZ.constructor_ok();
    },
    peer_disconnected(_id) {
      peerId = null;
    },
    provided_node_features: () => ldk.NodeFeatures.constructor_empty(),
    provided_init_features: (_id) => ldk.InitFeatures.constructor_empty(),
  },
  {
    read(type, buffer) {
      const msg = asType({ type: unsigned(type), payload: buffer });
      return ldk.Result_COption_TypeZDecodeErrorZ.constructor_ok(ldk.Option_TypeZ.constructor_some(msg));
    },
  },
);

// node-net waits for "drain" once a write has gone over the socket's mark, and then never writes again: its flag
// stays set. So the socket says that there is always room, and Node.js keeps what waits.
class Net extends NodeLDKNet {
  get_descriptor(socket) {
    const write = socket.write.bind(socket);
    socket.write = (data) => {
      write(data);
      return true;
    };
    return super.get_descriptor(socket);
  }
}

const logger = ldk.Logger.new_impl({
  log(record) {
    if (record.get_level() >= ldk.Level.LDKLevel_Info) console.error(record.get_args());
  },
});
const seed = new Uint8Array(32).fill(how === "listen" ? 41 : 42);
const now = Math.floor(Date.now() / 1000);
const signer = ldk.KeysManager.constructor_new(seed, BigInt(now), 0).as_NodeSigner();
const ignoring = ldk.IgnoringMessageHandler.constructor_new();
const manager = ldk.PeerManager.constructor_new(
  ldk.ErroringMessageHandler.constructor_new().as_ChannelMessageHandler(),
  ignoring.as_RoutingMessageHandler(),
  ignoring.as_OnionMessageHandler(),
  handler,
  now,
  seed,
  logger,
  signer,
);
const net = new Net(manager);

function pump() {
  net.process_events();
  if (sentCount < COUNT && peerId !== null) setImmediate(pump);
  else finishWhenDone();
}

function finishWhenDone() {
  if (finished || sentCount < COUNT || receivedCount < COUNT) return;
  finished = true;
  say({ received: receivedCount, sha256: received.copy().digest("hex") });
}

// The other side closes our stdin when it has all it wants.
process.stdin.on("end", () => {
  net.stop();
  process.exit(0);
});
process.stdin.resume();

const id = Buffer.from(signer.get_node_id(ldk.Recipient.LDKRecipient_Node).res).toString("hex");
if (how === "listen") {
  await net.bind_listener("127.0.0.1", 0);
  say({ id, port: net.servers[0].address().port });
} else {
  say({ id, port: 0 });
  await net.connect_peer(host, Number(port), Uint8Array.from(Buffer.from(nodeId, "hex")));
}
