import { typicalSize, type Dim } from "./dims.ts";
import { encodeGraph, liveNodes, type Graph, type GraphNode, type Tensor } from "./graph.ts";
import type { DType } from "./proto.ts";

/**
 * Operators that the backward rather computes again than reads back: views, and single passes over memory whose inputs are kept
 * anyway. Matrix products, softmax and rotation are kept.
 */
const CHEAP_OPS: ReadonlySet<string> = new Set(
  `Reshape Squeeze Unsqueeze Transpose Split Concat Slice Gather Expand Cast
   Add Sub Mul Div Neg Min Max Where Greater GreaterOrEqual LessOrEqual
   Sigmoid QuickGelu Relu SimplifiedLayerNormalization`.split(/\s+/),
);

export interface SplitGraph {
  forward: Uint8Array;
  backward: Uint8Array;
  /** Inputs that each part reads, residuals not counted, in the order of their declaration. */
  forwardInputs: string[];
  backwardInputs: string[];
  /**
   * Outputs of the forward that are inputs of the backward, under the same names. One that `Graph.output` named before goes by that
   * name; all others are outputs beside the named ones.
   */
  residuals: { name: string; dims: readonly Dim[]; type: DType }[];
}

/**
 * Cuts a graph in two where `Graph.backward` was first called. What the backward part reads of the forward's values is either kept
 * (a residual) or computed again from residuals and the graph's inputs, whichever holds fewer numbers.
 */
export function splitAtBackward(graph: Graph): SplitGraph {
  const boundary = graph.forwardNodes;
  if (boundary === undefined) throw new Error("splitAtBackward: the graph has no backward pass");
  const backwardOutputs = graph.outputs.filter((output) => output.backward);
  const forwardOutputs = graph.outputs.filter((output) => !output.backward);
  const live = new Set(
    liveNodes(
      graph.nodes,
      graph.outputs.map((output) => output.tensor),
    ),
  );
  // The run-time shape of a forward value is known in the forward; as a residual it is a few integers instead of the value.
  const forwardMade = new Set(graph.nodes.slice(0, boundary).flatMap((node) => node.outputs));
  const isForward = (node: GraphNode, i: number) =>
    i < boundary || (node.op === "Shape" && node.inputs[0] !== null && forwardMade.has(node.inputs[0]));
  const forwardNodes = graph.nodes.filter(isForward);
  const backwardNodes = graph.nodes.filter((node, i) => live.has(node) && !isForward(node, i));

  const producer = new Map<Tensor, GraphNode>();
  for (const node of forwardNodes) for (const output of node.outputs) producer.set(output, node);
  const wanted = new Set<Tensor>();
  const made = new Set(backwardNodes.flatMap((node) => node.outputs));
  for (const tensor of [...backwardNodes.flatMap((node) => node.inputs), ...backwardOutputs.map((o) => o.tensor)]) {
    if (tensor && producer.has(tensor) && !made.has(tensor)) wanted.add(tensor);
  }
  const plan = chooseResiduals(forwardNodes, producer, wanted);

  const residuals = plan.residuals;
  const recomputed = forwardNodes.filter((node) => plan.recomputed.has(node));
  const allBackward = [...recomputed, ...backwardNodes];
  const forwardLive = liveNodes(forwardNodes, [...forwardOutputs.map((output) => output.tensor), ...residuals]);
  const read = (nodes: readonly GraphNode[], outputs: readonly { tensor: Tensor }[]) => {
    const tensors = new Set([...nodes.flatMap((node) => node.inputs), ...outputs.map((output) => output.tensor)]);
    return graph.inputs.filter((input) => tensors.has(input));
  };
  const forwardInputs = read(forwardLive, forwardOutputs);
  const backwardInputs = read(allBackward, backwardOutputs);
  const extra = residuals.filter((tensor) => !forwardOutputs.some((output) => output.tensor === tensor));
  const nameOf = (tensor: Tensor) => forwardOutputs.find((output) => output.tensor === tensor)?.name ?? tensor.name;
  const named = residuals.map((tensor) => ({ name: nameOf(tensor), tensor }));
  return {
    forward: encodeGraph(graph, forwardLive, forwardInputs, [
      ...forwardOutputs,
      ...extra.map((tensor) => ({ name: tensor.name, tensor })),
    ]),
    backward: encodeGraph(graph, allBackward, backwardInputs, backwardOutputs, named),
    forwardInputs: forwardInputs.map((input) => input.name),
    backwardInputs: backwardInputs.map((input) => input.name),
    residuals: named.map(({ name, tensor }) => ({ name, dims: tensor.dims, type: tensor.type })),
  };
}

/**
 * Every wanted value is kept or computed again. Values of costly operators are kept; then, producers first, a cheap one is
 * computed again if the values that this still needs hold fewer numbers than it does itself (for a view: no more).
 */
function chooseResiduals(
  nodes: readonly GraphNode[],
  producer: ReadonlyMap<Tensor, GraphNode>,
  wanted: ReadonlySet<Tensor>,
): { residuals: Tensor[]; recomputed: Set<GraphNode> } {
  const kept = new Set<Tensor>();
  const recomputed = new Set<GraphNode>();
  const cheapNode = (tensor: Tensor) => {
    const node = producer.get(tensor);
    return node && CHEAP_OPS.has(node.op) ? node : undefined;
  };
  for (const tensor of wanted) if (!cheapNode(tensor)) kept.add(tensor);

  /** What a value needs that is not kept yet, and the nodes that then lead to it. */
  const trace = (tensor: Tensor, missing: Set<Tensor>, path: Set<GraphNode>): void => {
    if (kept.has(tensor) || !producer.has(tensor)) return;
    const node = cheapNode(tensor);
    if (!node) return void missing.add(tensor);
    if (path.has(node)) return;
    path.add(node);
    for (const input of node.inputs) if (input) trace(input, missing, path);
  };
  for (const tensor of nodes.flatMap((node) => node.outputs)) {
    const node = wanted.has(tensor) ? cheapNode(tensor) : undefined;
    if (!node) continue;
    const missing = new Set<Tensor>();
    const path = new Set<GraphNode>();
    trace(tensor, missing, path);
    const cost = [...missing].reduce((sum, each) => sum + typicalSize(each.dims), 0);
    const own = typicalSize(tensor.dims);
    if (cost < own || (cost === own && VIEWS.has(node.op))) {
      for (const each of missing) kept.add(each);
      for (const each of path) recomputed.add(each);
    } else {
      kept.add(tensor);
    }
  }
  // One output of a node may be kept before another makes it run again.
  const residuals = nodes.flatMap((node) =>
    recomputed.has(node) ? [] : node.outputs.filter((each) => kept.has(each)),
  );
  return { residuals, recomputed };
}

/** Operators that move no numbers. */
const VIEWS: ReadonlySet<string> = new Set(["Reshape", "Squeeze", "Unsqueeze"]);
