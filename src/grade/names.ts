/** Greek letters, by their LaTeX names: symbols. */
export const GREEK = new Set(
  (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon " +
    "phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega"
  ).split(" "),
);

/** Functions by the names that answers use; the value is the name that expressions use. */
export const FUNCTIONS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    ...Object.fromEntries(
      "sin cos tan cot sec csc sinh cosh tanh coth sech csch arcsin arccos arctan arccot arcsec arccsc ln log exp abs floor gcd lcm max min det sgn cis"
        .split(" ")
        .map((name) => [name, name]),
    ),
    asin: "arcsin",
    acos: "arccos",
    atan: "arctan",
    ceil: "ceiling",
    ceiling: "ceiling",
    cosec: "csc",
    tg: "tan",
    ctg: "cot",
    lg: "log",
    Re: "re",
    Im: "im",
    factorial: "factorial",
    binomial: "binomial",
    comb: "binomial",
    cbrt: "cbrt",
    sqrt: "sqrt",
    root: "sqrt",
  }),
);

/** Functions whose inverse is written with the exponent -1. */
export const INVERSE: ReadonlyMap<string, string> = new Map(
  ["sin", "cos", "tan", "cot", "sec", "csc"].map((name) => [name, `arc${name}`]),
);

/** Constants by name, in words and commands. */
export const CONSTANTS: ReadonlyMap<string, "pi" | "e" | "i" | "infinity"> = new Map([
  ["pi", "pi"],
  ["infty", "infinity"],
  ["infinity", "infinity"],
  ["inf", "infinity"],
  ["oo", "infinity"],
  ["iu", "i"],
]);

const ONES =
  "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen";
const TENS = "twenty thirty forty fifty sixty seventy eighty ninety";

/** Numbers in words, up to ninety. */
export const NUMBER_WORDS: ReadonlyMap<string, number> = new Map([
  ...ONES.split(" ").map((word, i): [string, number] => [word, i]),
  ...TENS.split(" ").map((word, i): [string, number] => [word, 20 + 10 * i]),
]);

/** Parts of a whole in words, by their number. */
export const FRACTION_WORDS: ReadonlyMap<string, number> = new Map(
  Object.entries({
    half: 2,
    halves: 2,
    third: 3,
    thirds: 3,
    quarter: 4,
    quarters: 4,
    fourth: 4,
    fourths: 4,
    fifths: 5,
    sixths: 6,
    sevenths: 7,
    eighths: 8,
    ninths: 9,
    tenths: 10,
  }),
);

/** Words behind a number that multiply it. */
export const SCALE_WORDS: ReadonlyMap<string, bigint> = new Map([
  ["dozen", 12n],
  ["hundred", 100n],
  ["thousand", 1000n],
  ["million", 1_000_000n],
  ["billion", 1_000_000_000n],
  ["trillion", 1_000_000_000_000n],
]);

/** Commands that take text; what stands in them is read as words. */
export const TEXT_COMMANDS = new Set(
  "text textrm textbf textit textsf texttt textnormal mbox hbox mathrm rm operatorname mathbf mathit mathsf mathtt bf boldsymbol pmb bold emph".split(
    " ",
  ),
);

/** Commands that only change how something looks, and spacing: passed over. */
export const IGNORED_COMMANDS = new Set(
  (
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm displaystyle textstyle scriptstyle " +
    "scriptscriptstyle limits nolimits quad qquad thinspace enspace space hfill noindent mathstrut strut nonumber boxed fbox boxit ensuremath mathopen mathclose " +
    "underline phantom hphantom vphantom smash color"
  ).split(" "),
);

/** Commands that stand for an operator or a bracket. */
export const COMMAND_MARKS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    cdot: "*",
    times: "*",
    ast: "*",
    div: "/",
    pm: "±",
    mp: "∓",
    le: "<=",
    leq: "<=",
    leqslant: "<=",
    leqq: "<=",
    ge: ">=",
    geq: ">=",
    geqslant: ">=",
    geqq: ">=",
    lt: "<",
    gt: ">",
    ne: "!=",
    neq: "!=",
    approx: "≈",
    sim: "≈",
    simeq: "≈",
    doteq: "≈",
    equiv: "≡",
    in: "∈",
    mid: "mid",
    vert: "|",
    lvert: "|",
    rvert: "|",
    cup: "∪",
    cap: "∩",
    bigcup: "∪",
    setminus: "∖",
    backslash: "∖",
    smallsetminus: "∖",
    to: "→",
    rightarrow: "→",
    mapsto: "→",
    longrightarrow: "→",
    colon: ":",
    lbrace: "\\{",
    rbrace: "\\}",
    lbrack: "[",
    rbrack: "]",
    lparen: "(",
    rparen: ")",
    langle: "⟨",
    rangle: "⟩",
    lfloor: "⌊",
    rfloor: "⌋",
    lceil: "⌈",
    rceil: "⌉",
    circ: "°",
    degree: "°",
    prime: "'",
    dollar: "\\$",
    euro: "€",
    pounds: "£",
    land: "and",
    wedge: "and",
    lor: "or",
    vee: "or",
    ldots: "…",
    dots: "…",
    cdots: "…",
    implies: "⇒",
    Rightarrow: "⇒",
    iff: "⇔",
    Leftrightarrow: "⇔",
    surd: "√",
  }),
);

/** Characters that stand for another spelling. Every value is read again by the lexer. */
export const CHARACTERS: ReadonlyMap<string, string> = new Map(
  Object.entries({
    "−": "-",
    "–": "-",
    "—": "-",
    "‐": "-",
    "‑": "-",
    "·": "*",
    "⋅": "*",
    "∙": "*",
    "•": "*",
    "×": "*",
    "∗": "*",
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "∶": ":",
    "：": ":",
    "≤": "<=",
    "≦": "<=",
    "⩽": "<=",
    "≥": ">=",
    "≧": ">=",
    "⩾": ">=",
    "≠": "!=",
    "≅": "≈",
    "≃": "≈",
    "∣": "|",
    "‖": "|",
    "∞": "\\infty ",
    π: "\\pi ",
    "√": "\\surd ",
    "∛": "\\cbrt ",
    º: "°",
    "∘": "°",
    "˚": "°",
    "′": "'",
    "’": "'",
    "‘": "'",
    "″": "''",
    "“": '"',
    "”": '"',
    "，": ",",
    "；": ";",
    "（": "(",
    "）": ")",
    "［": "[",
    "］": "]",
    "｛": "\\{",
    "｝": "\\}",
    "〈": "⟨",
    "〉": "⟩",
    "＝": "=",
    "＋": "+",
    "％": "%",
    "＄": "\\$",
    "¢": " cents ",
    "½": "\\frac{1}{2}",
    "⅓": "\\frac{1}{3}",
    "⅔": "\\frac{2}{3}",
    "¼": "\\frac{1}{4}",
    "¾": "\\frac{3}{4}",
    "⅕": "\\frac{1}{5}",
    "⅖": "\\frac{2}{5}",
    "⅗": "\\frac{3}{5}",
    "⅘": "\\frac{4}{5}",
    "⅙": "\\frac{1}{6}",
    "⅚": "\\frac{5}{6}",
    "⅛": "\\frac{1}{8}",
    "⅜": "\\frac{3}{8}",
    "⅝": "\\frac{5}{8}",
    "⅞": "\\frac{7}{8}",
    "∧": " and ",
    "∨": " or ",
    "…": "\\ldots ",
    "⋯": "\\ldots ",
    ℝ: "\\mathbb{R}",
    ℤ: "\\mathbb{Z}",
    ℕ: "\\mathbb{N}",
    ℚ: "\\mathbb{Q}",
    ℂ: "\\mathbb{C}",
    "∅": "\\emptyset ",
    "⟹": "⇒",
    "∖": "\\setminus ",
    α: "\\alpha ",
    β: "\\beta ",
    γ: "\\gamma ",
    δ: "\\delta ",
    ε: "\\epsilon ",
    ζ: "\\zeta ",
    η: "\\eta ",
    θ: "\\theta ",
    ι: "\\iota ",
    κ: "\\kappa ",
    λ: "\\lambda ",
    μ: "\\mu ",
    ν: "\\nu ",
    ξ: "\\xi ",
    ρ: "\\rho ",
    σ: "\\sigma ",
    τ: "\\tau ",
    φ: "\\phi ",
    χ: "\\chi ",
    ψ: "\\psi ",
    ω: "\\omega ",
    Γ: "\\Gamma ",
    Δ: "\\Delta ",
    Θ: "\\Theta ",
    Λ: "\\Lambda ",
    Σ: "\\Sigma ",
    Φ: "\\Phi ",
    Ψ: "\\Psi ",
    Ω: "\\Omega ",
  }),
);

/** Raised and lowered digits and signs, in order of what they stand for. */
const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ";
const RAISED_PLAIN = "0123456789+-()nix";
const LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎";
export const RAISED_CHARACTERS: ReadonlyMap<string, string> = new Map(
  [...RAISED].map((c, i): [string, string] => [c, RAISED_PLAIN[i]]),
);
export const LOWERED_CHARACTERS: ReadonlyMap<string, string> = new Map(
  [...LOWERED].map((c, i): [string, string] => [c, RAISED_PLAIN[i]]),
);

/** Short words that are not products of variables. */
export const SHORT_WORDS = new Set(
  (
    "in may yes no on odd the is not non all any of to at by per or and if for mod red sun mon tue wed thu fri sat day end new old both none neither either " +
    "it its we he she his her my our true even cm mm km kg mg ml mL ft yd mi lb lbs oz hr hrs min mins sec secs mph rad deg kWh kW Hz km cc sq pm am gal qt pt " +
    "cat dog boy girl men man day cup pen box bag ton an as be so DNE"
  ).split(" "),
);
