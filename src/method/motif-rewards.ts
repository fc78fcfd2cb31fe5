/**
 * The rewards of MOTIF's released code (github.com/purbeshmitra/MOTIF), for comparison with its runs: defects included. They look for literal
 * texts, so that an answer written otherwise is wrong; and a response without a newline after its last tag loses 0.001 a character.
 */

/** 2 where the answer part of a chain's last response holds `\boxed{gold}`, 1 where the response holds it elsewhere, else 0. */
export function referenceAccuracy(response: string, gold: string): number {
  const box = `\\boxed{${gold}}`;
  const part = response.split("<answer>").at(-1)?.split("</answer>")[0] ?? "";
  return part.includes(box) ? 2 : Number(response.includes(box));
}

/** Tag count, soft and strict format of a first response: `count`, `soft`, `strict`. */
export function referenceFormat(response: string): { count: number; soft: number; strict: number } {
  const once = (marker: string) => response.split(marker).length === 2;
  let count = 0;
  if (once("<reasoning>\n")) count += 0.125;
  if (once("\n</reasoning>\n")) count += 0.125;
  // What stands after the marker; without the marker that is everything.
  const after = (marker: string) => (response.split(marker).at(-1) ?? "").length;
  if (once("\n<answer>\n")) count += 0.125 - 0.001 * after("\n</answer>\n");
  if (once("\n</answer>")) count += 0.125 - 0.001 * (after("\n</answer>") - 1);
  // A dot matches no newline there, so that no layout earns both.
  return {
    count,
    soft: /^<reasoning>.*?<\/reasoning>\s*<answer>.*?<\/answer>/.test(response) ? 0.5 : 0,
    strict: /^<reasoning>\n.*?\n<\/reasoning>\n<answer>\n.*?\n<\/answer>\n$/.test(response) ? 0.5 : 0,
  };
}

/** 1 for the layout that the rounds' prompt asks for, lines and blanks aside, else 0. */
export function formatReward(response: string): number {
  return Number(/^\s*<reasoning>[^]*<\/reasoning>\s*<answer>[^]*<\/answer>\s*$/.test(response));
}
