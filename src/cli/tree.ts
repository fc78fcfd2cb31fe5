import { basename, resolve } from "node:path";
import { Command } from "commander";
import { treePage, TREE_MARK } from "../view/tree-page.ts";
import { treeText } from "../view/tree-text.ts";
import { stepTrees } from "../view/tree.ts";
import { checkFree, printResult, writePage } from "./output.ts";

interface Options {
  problem?: string;
  html?: string;
  json?: boolean;
}

export function treeCommand(): Command {
  return new Command("tree")
    .description("a step's search trees: in the terminal, or as one HTML page")
    .argument("<run>", "a run folder")
    .argument("<step>", "a step, from 0 as in metrics.jsonl; stage/step where several stages have it")
    .option("--problem <id>", "the trees of this problem alone (in the terminal the first problem's, when absent)")
    .option("--html <file>", "writes a page instead: all trees, to fold, hover and search")
    .option("--json", "print the trees as JSON")
    .action((run: string, step: string, o: Options) => {
      if (o.html !== undefined) checkFree(o.html, TREE_MARK, "rifft tree", "--html");
      const found = stepTrees(run, step, o.problem);
      const { stage, trees, notes } = found;
      const count = `${trees.length} tree${trees.length === 1 ? "" : "s"}`;
      if (o.html !== undefined) {
        const page = treePage(basename(resolve(run)), found);
        writePage(o.html, page);
        const result = { page: o.html, stage, step: found.step, trees: trees.length, bytes: Buffer.byteLength(page), notes }; // prettier-ignore
        printResult(o.json, result, () => `${o.html}: ${count} of ${stage} step ${found.step}`);
        return;
      }
      printResult(o.json, found, () => {
        const first = trees[0]?.problem;
        const shown = trees.filter(({ problem }) => problem === first);
        const others = [...new Set(trees.map(({ problem }) => problem))].slice(1);
        const width = process.stdout.columns ?? 120;
        const colour = process.stdout.isTTY === true && !process.env.NO_COLOR;
        return [
          `${stage} step ${found.step}: ${count}`,
          ...notes.map((note) => `note: ${note}`),
          ...shown.map((tree) => treeText(tree, { width, colour })),
          ...(others.length === 0 ? [] : [`${others.length} more with --problem: ${others.slice(0, 8).join(", ")}${others.length > 8 ? ", ..." : ""}`]), // prettier-ignore
        ].join("\n");
      });
    });
}
