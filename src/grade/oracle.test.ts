import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { equivalent } from "./equivalent.ts";

// Pairs of gold and answer labelled by SymPy and by construction (test/fixtures/README.md): the grader never sees the labels' origin.

interface Case {
  kind: string;
  gold: string;
  answer: string;
  equal: 0 | 1;
  options?: string[];
}

const file = join(import.meta.dirname, "../../test/fixtures/grade/cases.jsonl.gz");
const cases = gunzipSync(readFileSync(file))
  .toString("utf8")
  .trimEnd()
  .split("\n")
  .slice(1)
  .map((line) => JSON.parse(line) as Case);
const kinds = [...new Set(cases.map(({ kind }) => kind))];

/** The cases that the grader calls otherwise than their label. */
const wrong = cases.filter(({ gold, answer, equal, options }) => {
  const { verdict } = equivalent(gold, answer, options === undefined ? {} : { options });
  return (verdict === "equal") !== (equal === 1);
});

const list = (all: Case[]) => all.map(({ kind, gold, answer }) => `${kind}: ${gold} | ${answer}`);

describe("against an independent oracle", () => {
  test("there are enough cases of every kind", () => {
    expect(cases.filter(({ equal }) => equal === 1).length).toBeGreaterThanOrEqual(20_000);
    expect(cases.filter(({ equal }) => equal === 0).length).toBeGreaterThanOrEqual(20_000);
    for (const kind of kinds) expect(cases.filter((c) => c.kind === kind).length).toBeGreaterThanOrEqual(600);
  });

  test("no near miss is called equal", () => {
    expect(list(wrong.filter(({ equal }) => equal === 0))).toEqual([]);
  });

  test("at least 99 % of the rewrites are called equal", () => {
    const rewrites = cases.filter(({ equal }) => equal === 1).length;
    const missed = wrong.filter(({ equal }) => equal === 1);
    const share = (100 * (rewrites - missed.length)) / rewrites;
    process.stdout.write(
      `${rewrites - missed.length} of ${rewrites} rewrites equal (${share.toFixed(2)} %); missed:\n`,
    );
    for (const line of list(missed)) process.stdout.write(`  ${line}\n`);
    expect(share).toBeGreaterThanOrEqual(99);
  });
});
