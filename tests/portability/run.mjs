// node run.mjs MODEL.onnx IN OUT SHAPE SIZES
// Run a model in onnxruntime's JavaScript build, in one session, on raw float32 examples of the given shape ("1,28,28")
// in batches of the given sizes ("1,999"), and write the raw float32 outputs.
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

const [model, source, target, shape, sizes] = process.argv.slice(2);
const example = shape.split(",").map(Number);
const values = example.reduce((a, b) => a * b);

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });

// A small Buffer may begin anywhere in memory that it shares; the copy begins at 0, as float32 needs it.
const x = new Float32Array(new Uint8Array(readFileSync(source)).buffer);
const outputs = [];
let start = 0;
for (const size of sizes.split(",").map(Number)) {
  const batch = x.subarray(start * values, (start + size) * values);
  const feed = { [session.inputNames[0]]: new ort.Tensor("float32", batch, [size, ...example]) };
  const { data } = (await session.run(feed))[session.outputNames[0]];
  outputs.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  start += size;
}
writeFileSync(target, Buffer.concat(outputs));
