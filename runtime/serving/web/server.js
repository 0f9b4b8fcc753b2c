// What the page asks the server, with the key where one is needed. Every address is relative: a proxy may add a prefix.

const KEY = "smx-key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Refused(0, "the server does not answer");
  }
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({}));
    throw new Refused(response.status, error ?? `the server answered ${response.status}`);
  }
  return response;
}

const model = (name) => `v2/models/${encodeURIComponent(name)}`;
const post = async (path, content) => (await ask(path, { method: "POST", body: JSON.stringify(content) })).json();

export const listModels = () => post("v2/repository/index", {});
export const about = async (name) => (await ask(`${model(name)}/about`)).json();
export const infer = (name, request) => post(`${model(name)}/infer`, request);
export const neurons = (name, request) => post(`${model(name)}/neurons`, request);
export const modelFile = async (name) => (await ask(`${model(name)}/file`)).arrayBuffer();
