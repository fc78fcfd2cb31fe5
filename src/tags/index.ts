export {
  allowedNext,
  type Branch,
  closeTag,
  type Fn,
  FUNCTIONS,
  G1,
  G2,
  type Grammar,
  isFn,
  openTag,
  TAG_TOKENS,
} from "./grammar.ts";
export {
  type Fault,
  type FaultKind,
  type Layout,
  parseStrict,
  parseTolerant,
  serialize,
  type Step,
  validate,
  type Violation,
} from "./steps.ts";
