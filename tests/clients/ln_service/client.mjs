// The npm package `ln-service`, an LND client.

import * as lightning from "ln-service";
import { run } from "../lightning/calls.mjs";

await run(lightning.default ?? lightning);
