export { type Dim } from "./dims.ts";
export { type Attribute, type DType, type ExternalData } from "./proto.ts";
export { Graph, Tensor, type Data, type Gradient, type NodeOptions, type Rule } from "./graph.ts";
export {
  add,
  div,
  exp,
  greater,
  lessOrEqual,
  log,
  maximum,
  minimum,
  mul,
  neg,
  relu,
  sigmoid,
  silu,
  sqrt,
  sub,
  swiglu,
  tanh,
  where,
  type Operand,
} from "./elementwise.ts";
export { cast, concat, cumsum, gatherRows, pick, reshape, slice, split, transpose } from "./shape.ts";
export { max, sum } from "./reduce.ts";
export { logSoftmax, mean, rmsNorm, softmax } from "./normalize.ts";
export { gemm, linear, matmul, type LinearOptions, type LoraInputs, type MatmulOptions } from "./linear.ts";
export { rope } from "./rotary.ts";
export { splitAtBackward, type SplitGraph } from "./split.ts";
