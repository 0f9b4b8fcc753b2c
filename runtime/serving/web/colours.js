// One colour for each activation: those of the figures that smx train draws, and some for users' own.

const KNOWN = {
  relu: "#0072b2",
  sigmoid: "#999999",
  tanh: "#e69f00",
  leaky_relu: "#56b4e9",
  elu: "#d55e00",
  selu: "#009e73",
  gelu: "#cc79a7",
  silu: "#f0e442",
  mish: "#8c510a",
  hardswish: "#5e3c99",
};
const FURTHER = ["#b2182b", "#1b7837", "#762a83", "#4d4d4d", "#35978f", "#bf812d"];

export function colours(names) {
  const others = names.filter((name) => !(name in KNOWN) && name !== "identity");
  const further = others.map((name, i) => [name, FURTHER[i % FURTHER.length]]);
  const identity = getComputedStyle(document.documentElement).getPropertyValue("--identity").trim();
  return { ...KNOWN, identity, ...Object.fromEntries(further) };
}
