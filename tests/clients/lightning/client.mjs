// The npm package `lightning`, an LND client.

import * as lightning from "lightning";
import { run } from "./calls.mjs";

await run(lightning);
