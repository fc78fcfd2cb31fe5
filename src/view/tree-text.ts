import { HIDDEN } from "../eval/html-text.ts";
import { countNodes, type DrawnTree, type TreeNode } from "./tree.ts";

export interface TreeTextOptions {
  /** Columns of the terminal. */
  width: number;
  colour: boolean;
}

/** A tree in lines: `●` is on the chosen path; a function, visits, value, the policy's prior, the reward of a leaf, and the text's beginning. */
export function treeText({ problem, prompt, roots }: DrawnTree, options: TreeTextOptions): string {
  const { width } = options;
  const lines = [cut(problem, width), cut(oneLine(prompt), width)];
  const paint = (code: string, text: string) => (options.colour ? `\x1b[${code}m${text}\x1b[0m` : text);
  const draw = (nodes: readonly TreeNode[], before: string) => {
    for (const [i, node] of nodes.entries()) {
      const last = i === nodes.length - 1;
      // A deep tree in a narrow terminal keeps its marks and loses its indentation.
      const room = Math.max(0, Math.floor(width / 3));
      const lead = `${before}${last ? "└ " : "├ "}`.slice(-Math.max(2, room));
      const head = `${lead}${node.chosen ? "●" : "○"} ${node.label}`;
      const line = cut([head, numbers(node), quoted(node.text)].filter(Boolean).join("  "), width);
      const shownHead = line.slice(lead.length, head.length);
      const code = node.chosen ? "1" : node.reward === undefined ? "0" : node.reward > 0 ? "32" : "31";
      lines.push(line.slice(0, lead.length) + paint(code, shownHead) + line.slice(head.length));
      draw(node.children, `${before}${last ? "  " : "│ "}`);
    }
  };
  draw(roots, "");
  if (countNodes(roots) === 0) lines.push("(nothing was sampled)");
  return lines.join("\n");
}

/** What is known of a node, in short. */
export function numbers({ visits, value, prior, reward, rollouts }: TreeNode): string {
  const two = (x: number) => (Number.isFinite(x) ? String(Number(x.toFixed(2))) : String(x));
  return [
    visits !== undefined && `N ${visits}`,
    value !== undefined && `Q ${two(value)}`,
    prior !== undefined && `p ${two(prior)}`,
    reward !== undefined && `reward ${two(reward)}`,
    rollouts !== undefined && rollouts > 1 && `x${rollouts}`,
  ]
    .filter((part) => part !== false)
    .join(" ");
}

const quoted = (text: string) => (text.trim() === "" ? "" : JSON.stringify(oneLine(text)));

/** One line without characters that move the cursor or hide what stands there: whatever a model writes is only shown. */
const oneLine = (text: string) => text.trim().replace(/[\n\r\t]+/g, " / ").replace(HIDDEN, "·"); // prettier-ignore

function cut(text: string, width: number): string {
  const characters = Array.from(text);
  return characters.length <= width ? text : `${characters.slice(0, Math.max(1, width - 1)).join("")}…`;
}
