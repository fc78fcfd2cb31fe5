import { describe, expect, test } from "vitest";
import { smallConfig } from "../../../test/local.ts";
import { compile, type Numbers, type Port, randomNumbers, relativeError } from "../../tensor/testing.ts";
import { headBackwardAgain, headBackwardKept, headForward, type HeadOptions, valueHeadGraphs } from "./head-graphs.ts";

// Log-probs and entropies against a slow softmax, their gradients against central differences, in float64.

const N = 4;
const config = smallConfig();
const HIDDEN = config.hidden;
const VOCAB = config.vocab;

const port = (name: string, dims: Port["dims"], type: Port["type"] = "float64"): Port => ({ name, dims, type });
const inputPorts = (masked: boolean): Port[] => [
  port("h", ["n", HIDDEN]),
  port("embedding", [VOCAB, HIDDEN]),
  port("target", ["n"], "int64"),
  ...(masked ? [port("mask", ["n", VOCAB])] : []),
];

function feeds(seed: number): Record<string, Numbers> {
  const next = randomNumbers(seed);
  const normal = (...dims: number[]): Numbers => ({
    data: Array.from({ length: dims.reduce((a, b) => a * b, 1) }, next),
    dims,
  });
  const mask = normal(N, VOCAB);
  // The first row may be anything; the others choose among ids of which their target (3, 0, 8) is one.
  mask.data = mask.data.map((x, i) => (i < VOCAB || [3, 0, 8].includes(i % VOCAB) || x > 0 ? 0 : -1e30));
  return {
    h: normal(N, HIDDEN),
    embedding: normal(VOCAB, HIDDEN),
    target: { data: [5, 3, 0, 8], dims: [N], type: "int64" },
    mask,
    g: normal(N, 1),
    gEntropy: normal(N, 1),
    sum: normal(VOCAB, HIDDEN),
  };
}

/** The definition: [log-prob, entropy] of each row. */
function slow({ h, embedding, target, mask }: Record<string, Numbers>, masked: boolean): [number, number][] {
  return Array.from({ length: N }, (_, i) => {
    const logits = Array.from({ length: VOCAB }, (_, v) => {
      let sum = masked ? mask.data[i * VOCAB + v] : 0;
      for (let j = 0; j < HIDDEN; j++) sum += h.data[i * HIDDEN + j] * embedding.data[v * HIDDEN + j];
      return sum;
    });
    const largest = Math.max(...logits);
    const lse = largest + Math.log(logits.reduce((sum, z) => sum + Math.exp(z - largest), 0));
    const entropy = logits.reduce((sum, z) => (z < -1e29 ? sum : sum - Math.exp(z - lse) * (z - lse)), 0);
    return [logits[target.data[i]] - lse, entropy];
  });
}

const only = (all: Record<string, Numbers>, ports: Port[]) =>
  Object.fromEntries(ports.map(({ name }) => [name, all[name]]));

describe.each([{ masked: false }, { masked: true }])("the head, masked: $masked", ({ masked }) => {
  const options = (entropy: boolean): HeadOptions => ({ config, masked, entropy, float: "float64" });
  const forwardOutputs = [port("logprob", ["n"]), port("entropy", ["n"]), port("probs", ["n", VOCAB])];

  test("log-probs, entropies and probabilities are the definition's", async () => {
    const given = feeds(1);
    const inputs = inputPorts(masked);
    const found = await compile(headForward(options(true)), inputs, forwardOutputs)(only(given, inputs));
    const expected = slow(given, masked);
    expect(
      relativeError(
        found.logprob.data,
        expected.map(([logprob]) => logprob),
      ),
    ).toBeLessThan(1e-12);
    expect(
      relativeError(
        found.entropy.data,
        expected.map(([, entropy]) => entropy),
      ),
    ).toBeLessThan(1e-12);
    const sums = Array.from({ length: N }, (_, i) =>
      found.probs.data.slice(i * VOCAB, (i + 1) * VOCAB).reduce((a, b) => a + b, 0),
    );
    sums.forEach((sum) => expect(sum).toBeCloseTo(1, 12));
    if (masked) given.mask.data.forEach((m, i) => m < 0 && expect(found.probs.data[i]).toBe(0));
  });

  /** d(sum g logprob + gEntropy entropy) / d(h and the embedding) by central differences of the definition. */
  function numeric(given: Record<string, Numbers>, entropy: boolean, name: "h" | "embedding"): number[] {
    const loss = () =>
      slow(given, masked).reduce(
        (sum, [lp, e], i) => sum + given.g.data[i] * lp + (entropy ? given.gEntropy.data[i] * e : 0),
        0,
      );
    const { data } = given[name];
    return data.map((middle, i) => {
      data[i] = middle + 1e-5;
      const above = loss();
      data[i] = middle - 1e-5;
      const below = loss();
      data[i] = middle;
      return (above - below) / 2e-5;
    });
  }

  /** The gradient of the embedding as the engine sums it: the graph's part, and the targets' rows from `push`. */
  function embeddingGradient(result: Record<string, Numbers>, given: Record<string, Numbers>): number[] {
    const gradient = result.newSum.data.map((value, i) => value - given.sum.data[i]);
    given.target.data.forEach((id, i) => {
      for (let j = 0; j < HIDDEN; j++) gradient[id * HIDDEN + j] += result.push.data[i * HIDDEN + j];
    });
    return gradient;
  }

  const fullOutputs = [port("dh", ["n", HIDDEN]), port("push", ["n", HIDDEN]), port("newSum", [VOCAB, HIDDEN])];

  test.each([false, true])("gradients, logits made again, with entropy: %s", async (entropy) => {
    const given = feeds(2);
    const inputs = [...inputPorts(masked), port("g", ["n", 1]), port("sum", [VOCAB, HIDDEN])];
    if (entropy) inputs.push(port("gEntropy", ["n", 1]));
    const result = await compile(headBackwardAgain(options(entropy), "all"), inputs, fullOutputs)(only(given, inputs));
    expect(relativeError(result.dh.data, numeric(given, entropy, "h"))).toBeLessThan(1e-6);
    expect(relativeError(embeddingGradient(result, given), numeric(given, entropy, "embedding"))).toBeLessThan(1e-6);
    const frozen = inputs.filter(({ name }) => name !== "sum");
    const dh = await compile(
      headBackwardAgain(options(entropy), "none"),
      frozen,
      fullOutputs.slice(0, 1),
    )(only(given, frozen));
    expect(dh.dh.data).toEqual(result.dh.data);
  });

  test("the gradients of some rows alone are those of the whole matrix", async () => {
    const ids: Numbers = { data: [3, 1], dims: [2], type: "int64" };
    const given: Record<string, Numbers> = { ...feeds(5), ids };
    const inputs = inputPorts(masked);
    const { probs } = await compile(headForward(options(false)), inputs, [forwardOutputs[2]])(only(given, inputs));
    const all = [...inputs, port("g", ["n", 1]), port("sum", [VOCAB, HIDDEN])];
    const whole = await compile(headBackwardAgain(options(false), "all"), all, fullOutputs)(only(given, all));
    const expected = ids.data.flatMap((id) => {
      const at = (data: number[], i: number) => data[id * HIDDEN + i];
      return Array.from({ length: HIDDEN }, (_, i) => at(whole.newSum.data, i) - at(given.sum.data, i));
    });
    const sum = { data: expected.map((_, i) => i), dims: [2, HIDDEN] };
    const ports = [...all.slice(0, -1), port("sum", ["rows", HIDDEN]), port("ids", ["rows"], "int64")];
    const outputs = [...fullOutputs.slice(0, 2), port("newSum", ["rows", HIDDEN])];
    const kept = [...ports.filter(({ name }) => name !== "mask"), port("probs", ["n", VOCAB])];
    const again = compile(headBackwardAgain(options(false), "rows"), ports, outputs);
    const fromKept = compile(headBackwardKept({ ...options(false), masked: false }, "rows"), kept, outputs);
    for (const run of [
      () => again({ ...only(given, ports), sum }),
      () => fromKept({ ...only(given, kept), sum, probs }),
    ]) {
      const found = await run();
      expect(
        relativeError(
          found.newSum.data.map((value, i) => value - i),
          expected,
        ),
      ).toBeLessThan(1e-9);
      expect(relativeError(found.push.data, whole.push.data)).toBeLessThan(1e-12);
    }
  });

  test("gradients from kept probabilities are those of logits made again", async () => {
    const given = feeds(3);
    const inputs = inputPorts(masked);
    const { probs } = await compile(headForward(options(false)), inputs, [forwardOutputs[2]])(only(given, inputs));
    const again = [...inputs, port("g", ["n", 1]), port("sum", [VOCAB, HIDDEN])];
    const expected = await compile(headBackwardAgain(options(false), "all"), again, fullOutputs)(only(given, again));
    const kept = [...again.filter(({ name }) => name !== "mask"), port("probs", ["n", VOCAB])];
    const found = await compile(
      headBackwardKept({ ...options(false), masked: false }, "all"),
      kept,
      fullOutputs,
    )({
      ...only(given, again),
      probs,
    });
    expect(relativeError(found.dh.data, expected.dh.data)).toBeLessThan(1e-9);
    expect(relativeError(embeddingGradient(found, given), embeddingGradient(expected, given))).toBeLessThan(1e-9);
  });
});

test("a scalar head is h W^T + b, and its backward adds onto what is there", async () => {
  const width = 3;
  const next = randomNumbers(4);
  const normal = (...dims: number[]): Numbers => ({
    data: Array.from({ length: dims.reduce((a, b) => a * b, 1) }, next),
    dims,
  });
  const graphs = valueHeadGraphs(config, "float64");
  const given = { h: normal(N, HIDDEN), weight: normal(width, HIDDEN), bias: normal(width) };
  const inputs = [port("h", ["rows", HIDDEN]), port("weight", ["width", HIDDEN]), port("bias", ["width"])];
  const forward = compile(graphs.forward, inputs, [port("value", ["rows", "width"])]);
  const dv = normal(N, width);
  const loss = async () => (await forward(given)).value.data.reduce((sum, value, i) => sum + value * dv.data[i], 0);
  const before = {
    dhIn: normal(N, HIDDEN),
    "sum.weight": normal(width, HIDDEN),
    "sum.bias": normal(width),
  };
  const backwardInputs = [
    port("dv", ["rows", "width"]),
    inputs[0],
    inputs[1],
    port("dhIn", ["rows", HIDDEN]),
    port("sum.weight", ["width", HIDDEN]),
    port("sum.bias", ["width"]),
  ];
  const outputs = [
    port("dh", ["rows", HIDDEN]),
    port("newSum.weight", ["width", HIDDEN]),
    port("newSum.bias", ["width"]),
  ];
  const found = await compile(
    graphs.backward,
    backwardInputs,
    outputs,
  )({
    dv,
    h: given.h,
    weight: given.weight,
    ...before,
  });
  for (const [name, output, start] of [
    ["h", "dh", before.dhIn],
    ["weight", "newSum.weight", before["sum.weight"]],
    ["bias", "newSum.bias", before["sum.bias"]],
  ] as const) {
    const { data } = given[name];
    const numeric: number[] = [];
    for (let i = 0; i < data.length; i++) {
      const middle = data[i];
      data[i] = middle + 1e-5;
      const above = await loss();
      data[i] = middle - 1e-5;
      numeric.push((above - (await loss())) / 2e-5);
      data[i] = middle;
    }
    const added = found[output].data.map((value, i) => value - start.data[i]);
    expect(relativeError(added, numeric), name).toBeLessThan(1e-6);
  }
});
