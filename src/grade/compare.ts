import type { Budget } from "./budget.ts";
import { compareRelations, MIRROR } from "./equations.ts";
import { type Interval, realSet } from "./intervals.ts";
import { type GroupNode, isValue, type MatrixNode, type Node, type RelationNode, symbols } from "./node.ts";
import { equal } from "./rational.ts";
import { type Assignment, assignment, components, isSolved, settle } from "./settle.ts";
import { compareValues, type ValueOptions, withUnit } from "./values.ts";
import { type Comparison, differentBy, equalBy, unsureBy } from "./verdict.ts";

export interface CompareOptions extends ValueOptions {
  /** Lists without brackets must have the gold's order; by default they are solutions, in any order. */
  ordered?: boolean;
}

/** Compares two answers by what they are. */
export class Comparer {
  private readonly options: CompareOptions;
  private readonly budget: Budget;

  constructor(options: CompareOptions, budget: Budget) {
    this.options = options;
    this.budget = budget;
  }

  compare(goldNode: Node, answerNode: Node): Comparison {
    this.budget.spend(20);
    // The commonest case first.
    if (goldNode.kind === "number" && answerNode.kind === "number") return this.values(goldNode, answerNode);
    return this.settled(this.single(goldNode), this.single(answerNode));
  }

  /** Settled; a set or list with one item stands for that item, but the set of the empty set is not empty. */
  private single(node: Node): Node {
    const settled = settle(node, this.budget);
    if ((settled.kind !== "set" && settled.kind !== "list") || settled.items.length !== 1) return settled;
    const [item] = settled.items;
    return item.kind === "set" && item.items.length === 0 ? settled : this.single(item);
  }

  private values(gold: Node, answer: Node): Comparison {
    return compareValues(gold, answer, this.options, this.budget);
  }

  private settled(goldNode: Node, answerNode: Node): Comparison {
    const [gold, answer] = [this.calculated(goldNode), this.calculated(answerNode)];
    if (gold.kind === "text" || answer.kind === "text") return compareTexts(gold, answer);
    if (gold.kind === "time" || answer.kind === "time" || gold.kind === "ratio" || answer.kind === "ratio")
      return this.timesAndRatios(gold, answer);
    if (gold.kind === "date" || answer.kind === "date") return compareDates(gold, answer);
    if (isValue(gold) && isValue(answer)) return this.values(gold, answer);
    const named = this.assignments(gold, answer);
    if (named !== undefined) return named;
    if (gold.kind === "matrix" || answer.kind === "matrix") return this.matrices(gold, answer);
    if (gold.kind === "group" && answer.kind === "group") return this.groups(gold, answer);
    const sets = this.realSets(gold, answer);
    if (sets !== undefined) return sets;
    if (gold.kind === "relation" && answer.kind === "relation") return this.relations(gold, answer);
    const items = this.collections(gold, answer);
    if (items !== undefined) return items;
    return differentBy("structure", `one is ${describe(gold)}, the other ${describe(answer)}`);
  }

  /** The value of a calculation that holds: "2 + 3 = 5" is 5. */
  private calculated(node: Node): Node {
    if (node.kind !== "relation" || !node.operators.every((operator) => operator === "=")) return node;
    const last = node.operands[node.operands.length - 1];
    // "0 = 0" calculates nothing.
    if (node.operands.every((operand) => operand.kind === "number" && sameLiteral(operand, last))) return node;
    if (!node.operands.every((operand) => isValue(operand) && symbols(operand).size === 0)) return node;
    return node.operands.every((operand) => operand === last || this.values(last, operand).verdict === "equal")
      ? last
      : node;
  }

  /** A name with a value against a value, or two of them. Undefined where neither is an assignment. */
  private assignments(gold: Node, answer: Node): Comparison | undefined {
    const [left, right] = [assignment(gold), assignment(answer)];
    if (left !== undefined && right !== undefined) {
      if (left.name !== right.name && left.plain && right.plain) {
        // "y = x + 1" and "x = y - 1" name different variables of one equation.
        return gold.kind === "relation" &&
          answer.kind === "relation" &&
          gold.operators.length === 1 &&
          answer.operators.length === 1
          ? this.relations(gold, answer)
          : differentBy("equation", `one gives ${left.name}, the other ${right.name}`);
      }
      return this.compare(left.value, right.value);
    }
    const [one, other] = left !== undefined ? [left, answer] : right !== undefined ? [right, gold] : [undefined, gold];
    if (one === undefined) return undefined;
    if (other.kind === "relation")
      return left !== undefined &&
        left.plain &&
        symbols(left.value).size === 0 &&
        isValue(left.value) &&
        !isSolved(other)
        ? differentBy("equation", `one gives ${left.name}, the other is not solved`)
        : undefined;
    if (this.isRelationList(other)) {
      // "(x, y) = (1, 2)" and "x = 1, y = 2"
      if (
        one.value.kind !== "group" ||
        other.kind !== "list" ||
        !other.items.every((item) => assignment(item) !== undefined)
      )
        return undefined;
      return this.named(
        one,
        { kind: "group", open: "(", close: ")", items: components(other.items) },
        left !== undefined,
      );
    }
    return this.named(one, other, left !== undefined);
  }

  private isRelationList(node: Node): boolean {
    return (node.kind === "list" || node.kind === "set") && node.items.some((item) => item.kind === "relation");
  }

  private named(one: Assignment, other: Node, goldIsNamed: boolean): Comparison {
    return goldIsNamed ? this.compare(one.value, other) : this.compare(other, one.value);
  }

  private relations(gold: RelationNode, answer: RelationNode): Comparison {
    if (gold.operators.length !== answer.operators.length) return differentBy("relation", "chains of different length");
    if (gold.operators.length === 1) {
      if (
        gold.operators[0] in MIRROR &&
        answer.operators[0] in MIRROR &&
        gold.operands.concat(answer.operands).every(isValue)
      )
        return compareRelations(gold, answer, this.budget);
    }
    const same = (operands: readonly Node[], operators: readonly string[]): Comparison =>
      gold.operators.every((operator, i) => operator === operators[i])
        ? this.inOrder(gold.operands, operands, "relation")
        : differentBy("relation", "different relations");
    const forward = same(answer.operands, answer.operators);
    if (forward.verdict === "equal") return forward;
    const turned = [...answer.operators].reverse().map((operator) => MIRROR[operator] ?? operator);
    const backward = same([...answer.operands].reverse(), turned);
    return backward.verdict === "equal" ? backward : forward;
  }

  private groups(gold: GroupNode, answer: GroupNode): Comparison {
    if (gold.items.length !== answer.items.length)
      return differentBy("tuple", `${gold.items.length} components and ${answer.items.length}`);
    const pair = gold.items.length === 2;
    // Only with two items can brackets say which ends belong to an interval.
    if (pair && ((gold.open === "[") !== (answer.open === "[") || (gold.close === "]") !== (answer.close === "]")))
      return differentBy("interval", "one interval contains an end that the other does not");
    return this.inOrder(gold.items, answer.items, pair ? "pair" : "tuple");
  }

  private matrices(gold: Node, answer: Node): Comparison {
    const [left, right] = [asMatrix(gold), asMatrix(answer)];
    if (left === undefined || right === undefined)
      return differentBy("structure", `one is ${describe(gold)}, the other ${describe(answer)}`);
    const [a, b] = [left.rows, right.rows];
    // A column or row is a vector when the other side is no matrix.
    if (gold.kind !== "matrix" || answer.kind !== "matrix") {
      if (a.length !== 1 && a.some((row) => row.length !== 1)) return differentBy("matrix", "one is no vector");
      if (b.length !== 1 && b.some((row) => row.length !== 1)) return differentBy("matrix", "one is no vector");
      return this.inOrder(a.flat(), b.flat(), "vector");
    }
    if (a.length !== b.length || a.some((row, r) => row.length !== b[r].length))
      return differentBy("matrix", "matrices of different shape");
    return this.inOrder(a.flat(), b.flat(), "matrix");
  }

  /** Sets of real numbers: intervals, unions, inequalities. Undefined where one side is none. */
  private realSets(gold: Node, answer: Node): Comparison | undefined {
    if (!describesSet(gold) && !describesSet(answer)) return undefined;
    const [left, right] = [restricted(gold), restricted(answer)];
    if (left !== undefined && right !== undefined && left !== right)
      return differentBy("interval", `one restricts ${left}, the other ${right}`);
    const a = realSet(gold, this.budget);
    const b = a === undefined ? undefined : realSet(answer, this.budget);
    if (a === undefined || b === undefined) return undefined;
    if (a.length !== b.length) return differentBy("interval", `${a.length} intervals and ${b.length}`);
    let verdict = equalBy("interval", "the same set of real numbers");
    for (const [i, interval] of a.entries()) {
      const one = this.interval(interval, b[i]);
      if (one.verdict === "different") return one;
      if (one.verdict === "unsure") verdict = one;
    }
    return verdict;
  }

  private interval(a: Interval, b: Interval): Comparison {
    for (const side of ["low", "high"] as const) {
      const [left, right] = [a[side], b[side]];
      if (left.closed !== right.closed)
        return differentBy("interval", "one set contains an end that the other does not");
      if (Number.isFinite(left.at) !== Number.isFinite(right.at) || Math.sign(left.at) !== Math.sign(right.at))
        return differentBy("interval", "different ends");
      if (!Number.isFinite(left.at)) continue;
      const one = this.values(left.node, right.node);
      if (one.verdict !== "equal") return { ...one, rule: "interval" };
    }
    return equalBy("interval", "the same interval");
  }

  /** Sets, lists and tuples against each other. */
  private collections(gold: Node, answer: Node): Comparison | undefined {
    const [left, right] = [itemsOf(gold), itemsOf(answer)];
    if (left === undefined || right === undefined) return undefined;
    const inOrder = gold.kind === "group" || answer.kind === "group";
    if (inOrder) {
      if (gold.kind === "set" || answer.kind === "set")
        return differentBy("structure", `one is ${describe(gold)}, the other ${describe(answer)}`);
      if (gold.kind !== answer.kind && (isInterval(gold) || isInterval(answer)))
        return differentBy("interval", "one is an interval, the other a list");
      return this.inOrder(components(left), components(right), "tuple");
    }
    if (this.options.ordered === true && gold.kind === "list") return this.inOrder(left, right, "list");
    const set = gold.kind === "set" || answer.kind === "set";
    if (!this.isRelationList(gold) || !this.isRelationList(answer)) return this.anyOrder(bare(left), bare(right), set);
    return this.anyOrder(left, right, set);
  }

  private inOrder(gold: readonly Node[], answer: readonly Node[], rule: string): Comparison {
    if (gold.length !== answer.length) return differentBy(rule, `${gold.length} items and ${answer.length}`);
    let verdict = equalBy(rule, "equal item by item");
    for (const [i, item] of gold.entries()) {
      const one = this.compare(item, answer[i]);
      if (one.verdict === "different") return differentBy(rule, `item ${i + 1} differs: ${one.reason}`);
      if (one.verdict === "unsure") verdict = unsureBy(rule, `item ${i + 1}: ${one.reason}`);
    }
    return verdict;
  }

  /** Each gold item finds an answer item of its own; in a set, items may be repeated. */
  private anyOrder(gold: readonly Node[], answer: readonly Node[], set: boolean): Comparison {
    const rule = set ? "set" : "list";
    const [a, b] = set ? [this.distinct(gold), this.distinct(answer)] : [gold, answer];
    if (a.length !== b.length) return differentBy(rule, `${a.length} items and ${b.length}`);
    const left = [...b];
    let unsure: string | undefined;
    for (const item of a) {
      let found = -1;
      for (const [i, other] of left.entries()) {
        const { verdict, reason } = this.compare(item, other);
        if (verdict === "equal") {
          found = i;
          break;
        }
        if (verdict === "unsure") unsure = reason;
      }
      if (found < 0)
        return unsure === undefined
          ? differentBy(rule, "an item has no equal on the other side")
          : unsureBy(rule, unsure);
      left.splice(found, 1);
    }
    return equalBy(rule, "the same items in any order");
  }

  private distinct(items: readonly Node[]): Node[] {
    const kept: Node[] = [];
    for (const item of items) if (!kept.some((one) => this.compare(one, item).verdict === "equal")) kept.push(item);
    return kept;
  }

  private timesAndRatios(gold: Node, answer: Node): Comparison {
    if (gold.kind === "time" && answer.kind === "time") {
      if (gold.half !== undefined && answer.half !== undefined)
        return gold.minutes === answer.minutes && (gold.seconds ?? 0) === (answer.seconds ?? 0)
          ? equalBy("time", "the same time of day")
          : differentBy("time", "different times");
      // Without "a.m." hours from 13 on and 0 are those of a 24-hour clock; others may be either half of the day.
      const afternoon = (time: typeof gold): boolean =>
        time.half === undefined && (time.minutes >= 780 || time.minutes < 60);
      const clock = gold.half === answer.half || afternoon(gold) || afternoon(answer) ? 24 * 60 : 12 * 60;
      return gold.minutes % clock === answer.minutes % clock && (gold.seconds ?? 0) === (answer.seconds ?? 0)
        ? equalBy("time", "the same time")
        : differentBy("time", "different times");
    }
    const [left, right] = [asRatio(gold), asRatio(answer)];
    if (left === undefined || right === undefined)
      return differentBy("structure", `one is ${describe(gold)}, the other ${describe(answer)}`);
    if (left.length !== right.length) return differentBy("ratio", "ratios of different length");
    // a : b = c : d when a d = b c, part by part against the first.
    for (let i = 1; i < left.length; i++) {
      const one = this.values(times(left[0], right[i]), times(right[0], left[i]));
      if (one.verdict !== "equal") return { ...one, rule: "ratio" };
    }
    return equalBy("ratio", "the same ratio");
  }
}

const sameLiteral = (a: Node, b: Node): boolean =>
  a.kind === "number" && b.kind === "number" && a.places === b.places && equal(a.value, b.value);

const times = (a: Node, b: Node): Node => ({ kind: "product", factors: [withUnit(a).value, withUnit(b).value] });

const isInterval = (node: Node): boolean =>
  node.kind === "group" && node.items.length === 2 && (node.open === "[" || node.close === "]");

/** Assigned values without their names. */
const bare = (items: readonly Node[]): Node[] => items.map((item) => assignment(item)?.value ?? item);

function itemsOf(node: Node): readonly Node[] | undefined {
  if (node.kind === "set" || node.kind === "list" || node.kind === "group") return node.items;
  return isValue(node) ? [node] : undefined;
}

function asMatrix(node: Node): MatrixNode | undefined {
  if (node.kind === "matrix") return node;
  return node.kind === "group" || node.kind === "list" ? { kind: "matrix", rows: [node.items] } : undefined;
}

function asRatio(node: Node): readonly Node[] | undefined {
  if (node.kind === "ratio") return node.items;
  if (node.kind === "time") {
    if (node.half !== undefined || node.seconds !== undefined) return undefined;
    const part = (value: number): Node => ({ kind: "number", value: { n: BigInt(value), d: 1n } });
    return [part(Math.floor(node.minutes / 60)), part(node.minutes % 60)];
  }
  return isValue(node) ? [node, { kind: "number", value: { n: 1n, d: 1n } }] : undefined;
}

/** The one variable of inequalities, which a set in braces binds. */
function restricted(node: Node): string | undefined {
  if (node.kind !== "relation" && node.kind !== "list") return undefined;
  const [name, ...others] = symbols(node.kind === "relation" && node.operators[0] === "in" ? node.operands[0] : node);
  return others.length === 0 ? name : undefined;
}

/** Whether a node is a set of real numbers rather than a list of values. */
function describesSet(node: Node): boolean {
  if (node.kind === "symbol") return node.name === "mathbb R";
  if (node.kind === "relation") return node.operators.some((operator) => operator !== "=" && operator !== "divides");
  if (node.kind === "list") return node.items.some(describesSet);
  return node.kind === "union" || node.kind === "intersection" || node.kind === "difference" || node.kind === "builder";
}

function compareTexts(gold: Node, answer: Node): Comparison {
  if (gold.kind === "text" && answer.kind === "text") {
    const unread = gold.unread ?? answer.unread;
    if (unread === undefined && statement(gold.text) === statement(answer.text) && gold.text !== "")
      return equalBy("text", "the same text");
    if (unread !== undefined) return unsureBy("unread", `not read as mathematics: ${unread}`);
    if (gold.text === "" || answer.text === "") return unsureBy("unread", "nothing to read");
    return differentBy("text", "different words");
  }
  const text = gold.kind === "text" ? gold : answer;
  if (text.kind === "text" && text.unread !== undefined)
    return unsureBy("unread", `not read as mathematics: ${text.unread}`);
  const other = gold.kind === "text" ? answer : gold;
  if (text.kind === "text" && other.kind === "set" && other.items.length === 0 && EMPTY.test(statement(text.text)))
    return equalBy("set", "there is no solution");
  if (text.kind === "text" && /^all real( number)?s?$/.test(text.text) && describesReals(other))
    return equalBy("set", "all real numbers");
  return differentBy("structure", "one is words, the other mathematics");
}

/** "There is no solution" says "no solution". */
const statement = (text: string): string =>
  text === "dne" ? "does not exist" : text.replace(/^there (?:is|are) (?=no )/, "");

const EMPTY = /^(no (real )?(solutions?|answers?|values?)|none|empty set|does not exist)$/;

function describesReals(node: Node): boolean {
  if (node.kind === "symbol") return node.name === "mathbb R";
  if (node.kind !== "group" || node.items.length !== 2) return false;
  return node.items.every(
    (item) =>
      (item.kind === "constant" ? item : item.kind === "product" ? item.factors.at(-1) : undefined)?.kind ===
      "constant",
  );
}

function compareDates(gold: Node, answer: Node): Comparison {
  if (gold.kind !== "date" || answer.kind !== "date") return differentBy("structure", "only one is a date");
  const clash = (a: number | undefined, b: number | undefined): boolean =>
    a !== undefined && b !== undefined && a !== b;
  return gold.month !== answer.month || clash(gold.day, answer.day) || clash(gold.year, answer.year)
    ? differentBy("date", "different dates")
    : equalBy("date", "the same date");
}

function describe(node: Node): string {
  if (isValue(node)) return "a value";
  const names: Partial<Record<Node["kind"], string>> = {
    group: "a tuple or interval",
    list: "a list",
    set: "a set",
    relation: "a relation",
    matrix: "a matrix",
    text: "words",
    time: "a time",
    date: "a date",
    ratio: "a ratio",
    union: "a union",
    builder: "a set",
  };
  return names[node.kind] ?? "something else";
}
