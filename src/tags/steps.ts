import { closeTag, type Fn, FUNCTIONS, type Grammar, isFn, openTag } from "./grammar.ts";

/** A block of a reasoning path. */
export interface Step {
  fn: Fn;
  text: string;
}

/**
 * How a path is written. `tokens`: nothing stands between blocks, so that after a closing tag the next token is a function. `text`: as the
 * released code writes it, each tag on a line of its own.
 */
export type Layout = "tokens" | "text";

/** A path as text. A step's text is trimmed, and a step without text is left out. */
export function serialize(steps: readonly Step[], layout: Layout): string {
  const [within, after] = layout === "text" ? ["\n", "\n"] : ["", ""];
  return steps
    .map(({ fn, text }) => ({ fn, text: text.trim() }))
    .filter(({ text }) => text !== "")
    .map(({ fn, text }) => `${openTag(fn)}${within}${text}${within}${closeTag(fn)}${after}`)
    .join("");
}

export type FaultKind =
  | "unclosed" // another tag opens, or the text ends, before its closing tag
  | "nested" // another tag opens inside, and its own closing tag comes later
  | "wrong close" // closed by another function's tag
  | "stray close" // a closing tag where none is open
  | "unknown" // looks like a tag, and is none of the functions; stays text
  | "empty" // a block without text; left out
  | "outside"; // text between blocks; left out

/** What is wrong with a text as a path. */
export interface Fault {
  kind: FaultKind;
  /** Where, in characters from the start. */
  at: number;
  /** In words. */
  reason: string;
}

const TAG = /<(\/?)([a-z][a-z_]*)>/g;

/** The steps that can be made out in a text, and everything that is wrong with it: what a policy may write without a grammar to hold it. */
export function parseTolerant(text: string): { steps: Step[]; faults: Fault[] } {
  const steps: Step[] = [];
  const faults: Fault[] = [];
  const note = (kind: FaultKind, at: number, reason: string): Fault => {
    const fault = { kind, at, reason };
    faults.push(fault);
    return fault;
  };
  let open: { fn: Fn; at: number; start: number } | undefined;
  let free = 0;
  const interrupted = new Map<Fn, Fault>();
  const outside = (end: number) => {
    const between = text.slice(free, end);
    if (between.trim() !== "") note("outside", free, `text outside of any block: ${shown(between)}`);
  };
  const finish = (end: number) => {
    if (open === undefined) return;
    const content = text.slice(open.start, end).trim();
    if (content === "") note("empty", open.at, `${openTag(open.fn)} has no text`);
    else steps.push({ fn: open.fn, text: content });
    open = undefined;
  };
  for (const match of text.matchAll(TAG)) {
    const [tag, slash, name] = match;
    const at = match.index;
    if (!isFn(name)) {
      note("unknown", at, `${tag} is none of the functions`);
    } else if (slash === "") {
      if (open === undefined) outside(at);
      else {
        const { fn, at: opened } = open;
        interrupted.set(fn, note("unclosed", opened, `${openTag(fn)} is not closed before ${tag} opens`));
        finish(at);
      }
      open = { fn: name, at, start: at + tag.length };
    } else if (open !== undefined) {
      if (open.fn !== name) note("wrong close", at, `${openTag(open.fn)} is closed by ${tag}`);
      finish(at);
      free = at + tag.length;
    } else {
      outside(at);
      const outer = interrupted.get(name);
      if (outer === undefined) note("stray close", at, `${tag} closes nothing`);
      else {
        outer.kind = "nested";
        outer.reason = `another block opens inside of ${openTag(name)}`;
        interrupted.delete(name);
      }
      free = at + tag.length;
    }
  }
  if (open === undefined) outside(text.length);
  else {
    note("unclosed", open.at, `${openTag(open.fn)} is not closed`);
    finish(text.length);
  }
  return { steps, faults };
}

/** Whether a fault keeps a text from being a path: what looks like a tag and is none is text of its step. */
export const breaksPath = ({ kind }: Fault): boolean => kind !== "unknown";

/** The steps of a text that `serialize` wrote (at the end of a `text` layout blanks do not count), or the first thing that is wrong with it. */
export function parseStrict(text: string, layout: Layout): { steps: Step[] } | { fault: Fault } {
  const { steps, faults } = parseTolerant(text);
  const [fault] = faults.filter(breaksPath).sort((a, b) => a.at - b.at);
  if (fault !== undefined) return { fault };
  const end = (written: string) => (layout === "text" ? written.trimEnd() : written);
  const [found, expected] = [end(text), end(serialize(steps, layout))];
  if (found === expected) return { steps };
  const at = Array.from(expected).findIndex((character, i) => character !== found[i]);
  const where = at < 0 ? expected.length : at;
  const reason = `expected ${shown(expected.slice(where))}, found ${shown(found.slice(where))}: blanks belong inside of blocks`;
  return { fault: { kind: "outside", at: where, reason } };
}

/** Why steps are no path of a grammar: which step, and the reason. */
export interface Violation {
  /** Position of the step; the number of steps where something is missing after the last. */
  step: number;
  reason: string;
}

/**
 * Undefined where the steps are a path of the grammar: each function may follow the one before it, has text, and holds no tag of its own. A
 * `complete` path (true when absent) also ends as the grammar says, which for G2 is one `output`.
 */
export function validate(
  steps: readonly Step[],
  grammar: Grammar,
  { complete = true }: { complete?: boolean } = {},
): Violation | undefined {
  let before: Fn | undefined;
  for (const [step, { fn, text }] of steps.entries()) {
    const allowed = grammar.next[before ?? "root"].map((branch) => branch.fn);
    if (!allowed.includes(fn)) {
      const place = before === undefined ? "the beginning" : before;
      const valid = allowed.length === 0 ? "nothing" : allowed.join(", ");
      return { step, reason: `${fn} cannot follow ${place}; expected ${valid}` };
    }
    if (text.trim() === "") return { step, reason: `${fn} has no text` };
    const tag = FUNCTIONS.flatMap((name) => [openTag(name), closeTag(name)]).find((one) => text.includes(one));
    if (tag !== undefined) return { step, reason: `the text of ${fn} holds the tag ${tag}` };
    before = fn;
  }
  if (!complete || (before !== undefined && grammar.last.includes(before))) return undefined;
  return {
    step: steps.length,
    reason: `a path ends with ${grammar.last.join(" or ")}, found ${before ?? "no step"} at its end`,
  };
}

const shown = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text);
