import { mathText } from "../eval/html-text.ts";
import type { AnswerGrade } from "../eval/samples.ts";
import type { Problem } from "../task/types.ts";
import { encodeBlock } from "./blocks.ts";
import { type Columns, KINDS, type Row, STOPS, toColumns, VERDICTS } from "./columns.ts";
import type { Pieces } from "./pieces.ts";
import type { ViewHead, ViewProblem, ViewSegment, ViewTree } from "./types.ts";

/** Rows of a block: few enough that one is decoded within a frame. */
const BLOCK_ROWS = 256;

/** A segment as it is added. */
export interface AddedSegment extends Omit<ViewSegment, "tokens" | "at" | "pieces" | "series" | "html" | "outcome"> {
  tokens: ArrayLike<number>;
  series: Record<string, ArrayLike<number>>;
  outcome?: Record<string, number>;
  /** Shown as text; that of all tokens where it is longer (with the token that ended it). */
  whole?: string;
}

export interface AddedTree extends Omit<ViewTree, "segments"> {
  problem: string;
  segments: AddedSegment[];
  /** As `Columns.flip`. */
  flip?: number;
}

/** Collects trees as rows of a list and blocks of texts and numbers. */
export class ViewBuilder {
  private readonly pieces: Pieces[];
  private readonly rows: Row[] = [];
  private readonly problems = new Map<string, number>();
  private readonly problemList: ViewProblem[] = [];
  private readonly series = new Set<string>();
  private block: ViewTree[] = [];
  private ids: number[] = [];
  private values: number[] = [];
  private blockRows = 0;
  private samples = 0;
  /** Blocks, encoded: texts and numbers. */
  readonly encoded: { texts: string; numbers: string }[] = [];

  /** `pieces`: of each side; one where nothing is compared. */
  constructor(...pieces: Pieces[]) {
    this.pieces = pieces;
  }

  /** Tells what is known of a problem; the first word on it counts. */
  problem(id: string, rest: Partial<Pick<Problem, "question" | "options" | "tags">> & { gold?: string } = {}): number {
    const known = this.problems.get(id);
    if (known !== undefined) return known;
    const html = rest.question === undefined ? undefined : formulas(rest.question);
    this.problems.set(id, this.problemList.length);
    this.problemList.push({ id, ...rest, html });
    return this.problemList.length - 1;
  }

  /** Adds the trees of one step (or problem): those with a `cause` among them stand beneath the segment that caused them. */
  add(trees: readonly AddedTree[], place = -1): number {
    const before = this.samples;
    const byId = new Map(trees.map((tree) => [tree.id, tree]));
    const caused = new Map<AddedTree, AddedTree[]>();
    const roots: AddedTree[] = [];
    for (const tree of trees) {
      const parent = tree.cause && byId.get(tree.cause.tree);
      if (parent === undefined || parent === tree) roots.push(tree);
      else caused.set(parent, [...(caused.get(parent) ?? []), tree]);
    }
    const done = new Set<AddedTree>();
    const visit = (tree: AddedTree, up: number, depth: number) => {
      if (done.has(tree)) return;
      done.add(tree);
      this.addTree(tree, place, up, depth, caused.get(tree) ?? [], visit);
    };
    for (const tree of roots) visit(tree, -1, 0);
    // Causes that go in a circle have no root.
    for (const tree of trees) visit(tree, -1, 0);
    return this.samples - before;
  }

  private addTree(
    tree: AddedTree,
    place: number,
    up: number,
    depth: number,
    caused: AddedTree[],
    visit: (tree: AddedTree, up: number, depth: number) => void,
  ): void {
    const { segments } = tree;
    const children: number[][] = segments.map(() => []);
    segments.forEach(({ parent }, s) => parent >= 0 && children[parent].push(s));
    const isLeaf = (s: number) => children[s].length === 0 && (segments[s].parent >= 0 || segments.length === 1);
    const isBranch = (s: number) => segments[s].parent >= 0 && children[s].length > 1;
    const leaves = segments.flatMap((_, s) => (isLeaf(s) ? [s] : []));
    const problem = this.problem(tree.problem);
    const [block, index] = this.store(tree);
    const base = { ...emptyRow, place, problem, block, tree: index, flip: tree.flip ?? 0 };
    // A path alone needs no row for its tree; what begins a question's rounds has one all the same.
    const begins = caused.length > 0 && tree.cause === undefined;
    const headed = leaves.length > 1 || begins || segments.some((_, s) => isBranch(s));
    let top = up;
    if (headed) {
      const rewards = leaves.map((s) => segments[s].outcome?.reward ?? NaN).filter((reward) => !Number.isNaN(reward));
      const verdicts = leaves.flatMap((s) => segments[s].strict?.verdict ?? []);
      top = this.push({
        ...base,
        kind: KINDS.group,
        depth,
        up,
        segment: -1,
        number: leaves.length,
        right: verdicts.length === 0 ? -1 : verdicts.filter((verdict) => verdict === "equal").length,
        reward: rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length,
      });
    }
    const waiting = new Set(caused);
    const numbers = [0, 0];
    const roots = segments.flatMap(({ parent }, s) => (parent < 0 ? [s] : [])).reverse();
    const stack = roots.map((s) => ({ s, up: top, depth: depth + Number(headed) }));
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const { s } = next;
      let [above, level] = [next.up, next.depth];
      if (isLeaf(s) || isBranch(s)) {
        const leaf = isLeaf(s);
        const row = this.push({
          ...base,
          ...pathNumbers(tree, s),
          kind: leaf ? KINDS.sample : KINDS.branch,
          depth: level,
          up: above,
          segment: s,
          number: leaf ? numbers[segments[s].side ?? 0]++ : 0,
        });
        this.samples += Number(leaf);
        [above, level] = [row, level + 1];
        for (const other of caused) {
          if (other.cause?.segment !== s) continue;
          waiting.delete(other);
          visit(other, row, level);
        }
      }
      for (const child of children[s].toReversed()) stack.push({ s: child, up: above, depth: level });
    }
    // Caused by a segment that has no row of its own.
    for (const other of waiting) visit(other, top, depth + 1);
  }

  private push(row: Row): number {
    this.rows.push({ ...row, depth: Math.min(255, row.depth) });
    this.blockRows++;
    return this.rows.length - 1;
  }

  /** Puts a tree into the open block; returns its block and place. */
  private store({ id, group, cause, segments }: AddedTree): [number, number] {
    if (this.blockRows >= BLOCK_ROWS || this.ids.length > 200_000) this.flush();
    const stored = segments.map(({ tokens, series, outcome, whole, ...segment }): ViewSegment => {
      const at = this.ids.length;
      for (let t = 0; t < tokens.length; t++) this.ids.push(tokens[t]);
      const starts: Record<string, number> = {};
      for (const [name, numbers] of Object.entries(series)) {
        this.series.add(name);
        starts[name] = this.values.length;
        for (let t = 0; t < numbers.length; t++) this.values.push(numbers[t]);
      }
      return {
        ...segment,
        html: formulas(segment.text),
        tokens: tokens.length,
        at,
        pieces: this.pieces[segment.side ?? 0].of(tokens, whole ?? segment.text),
        series: starts,
        outcome:
          outcome &&
          Object.fromEntries(Object.entries(outcome).map(([name, x]) => [name, Number.isFinite(x) ? x : String(x)])),
      };
    });
    this.block.push({ id, group, cause, segments: stored });
    return [this.encoded.length, this.block.length - 1];
  }

  private flush(): void {
    if (this.block.length === 0) return;
    const numbers = { ids: Int32Array.from(this.ids), values: Float32Array.from(this.values) };
    this.encoded.push({ texts: encodeBlock(this.block), numbers: encodeBlock(null, numbers) });
    [this.block, this.ids, this.values, this.blockRows] = [[], [], [], 0];
  }

  /** The columns of the rows, and what of the head comes from the trees. */
  finish(): { columns: Columns; head: Pick<ViewHead, "problems" | "series" | "pieces" | "blocks" | "samples"> } {
    this.flush();
    return {
      columns: toColumns(this.rows),
      head: {
        problems: this.problemList,
        series: [...this.series],
        pieces: this.pieces.map((one) => one.table()),
        blocks: this.encoded.length,
        samples: this.samples,
      },
    };
  }
}

const emptyRow: Row = {
  kind: 0,
  depth: 0,
  up: -1,
  place: -1,
  problem: -1,
  block: 0,
  tree: 0,
  segment: -1,
  number: 0,
  right: -1,
  side: 0,
  tokens: 0,
  stop: 0,
  reward: NaN,
  logprob: NaN,
  advantage: NaN,
  strict: 0,
  flexible: 0,
  error: 0,
  flip: 0,
};

/** Means over the tokens that were chosen on the path to a segment, and what is known of its end. */
function pathNumbers({ segments }: AddedTree, end: number): Partial<Row> {
  let [tokens, logprob, advantage, scored, weighed] = [0, 0, 0, 0, 0];
  for (let s = end; s >= 0; s = segments[s].parent) {
    const { source, series, tokens: ids } = segments[s];
    if (!["policy", "search", "forced", "data"].includes(source)) continue;
    tokens += ids.length;
    const { logprobs, advantages, advantagesUp, advantagesDown } = series;
    for (let t = 0; t < (logprobs?.length ?? 0); t++) logprob += logprobs[t];
    scored += logprobs?.length ?? 0;
    const signed = advantages ?? (advantagesUp && advantagesDown && subtract(advantagesUp, advantagesDown));
    for (let t = 0; t < (signed?.length ?? 0); t++) advantage += signed[t];
    weighed += signed?.length ?? 0;
  }
  const { stop, outcome, strict, flexible, error, side = 0 } = segments[end];
  const verdict = (grade?: AnswerGrade) => VERDICTS.indexOf(grade?.verdict ?? "");
  return {
    tokens,
    logprob: logprob / scored,
    advantage: advantage / weighed,
    stop: Math.max(0, STOPS.indexOf(stop ?? "")),
    reward: outcome?.reward ?? NaN,
    strict: verdict(strict),
    flexible: verdict(flexible),
    error: Number(error !== undefined),
    side,
  };
}

function subtract(a: ArrayLike<number>, b: ArrayLike<number>): Float32Array {
  return Float32Array.from(a, (value, t) => value - b[t]);
}

/** A text with its formulas as MathML; undefined where it has none. */
function formulas(text: string): string | undefined {
  if (!/[$\\]/.test(text)) return undefined;
  const html = mathText(text);
  return html.includes('<span class="formula">') ? html : undefined;
}
