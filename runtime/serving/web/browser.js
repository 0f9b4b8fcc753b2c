// The same file in the browser: onnxruntime-web, which the server has where --web-runtime names it.

const TYPES = { FP32: ["float32", Float32Array], UINT8: ["uint8", Uint8Array] };

export const canRun = (about) => about.in_browser && about.inputs.every(({ datatype }) => datatype in TYPES);

export async function load(file) {
  const folder = new URL("../web-runtime/", import.meta.url);
  const ort = await import(new URL("ort.wasm.min.mjs", folder));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = folder.href;
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  return async ({ datatype, shape, data }) => {
    const [type, Values] = TYPES[datatype];
    const feed = { [session.inputNames[0]]: new ort.Tensor(type, Values.from(data), shape) };
    const start = performance.now();
    const outputs = await session.run(feed);
    return { scores: Array.from(outputs[session.outputNames[0]].data), milliseconds: performance.now() - start };
  };
}

export function softmax(scores) {
  const most = Math.max(...scores);
  const odds = scores.map((score) => Math.exp(score - most));
  const sum = odds.reduce((a, b) => a + b);
  return odds.map((each) => each / sum);
}
