// Markdown as elements: marked reads it into tokens, and the elements are made here, one kind each.
//
// No HTML is ever parsed, so what a model writes cannot become markup, whatever it is: its tags are
// shown as they stand. Images are links; the page loads nothing that an answer names.

import { Marked, Tokenizer } from "./vendor/marked.esm.js";
import { codeBlock } from "./codeblock.js";
import { el } from "./dom.js";
import { maths, mathsSyntax } from "./maths.js";

// Lists and quotes in each other, of which deeper ones stay text: whatever is nested is read once more for each
// level. A choice.
const MOST_LEVELS = 10;

/** Reads Markdown that is not nested without end. */
class ShallowTokenizer extends Tokenizer {
  #level = 0;

  list(source) {
    return this.#within(() => super.list(source));
  }

  blockquote(source) {
    return this.#within(() => super.blockquote(source));
  }

  #within(read) {
    if (this.#level === MOST_LEVELS) return undefined;
    this.#level += 1;
    try {
      return read();
    } finally {
      this.#level -= 1;
    }
  }
}

const marked = new Marked({ gfm: true, extensions: mathsSyntax });
marked.setOptions({ tokenizer: new ShallowTokenizer() });

/** The top-level tokens of a text; joined, what they have as `raw` is the text. */
export function blocksOf(text) {
  try {
    return marked.lexer(text);
  } catch {
    // Some thousand quotes in each other, say.
    return [{ type: "html", raw: text }];
  }
}

/**
 * The element of a top-level token, null where it has none.
 *
 * Headings are below those of the page: `outline.level` is that of the last one, and is kept.
 */
export function blockElement(token, outline) {
  const make = BLOCKS[token.type];
  return make ? make(token, outline) : inlineParagraph(token);
}

const BLOCKS = {
  space: () => null,
  def: () => null,
  hr: () => el("hr"),
  paragraph: (token) => el("p", {}, ...inline(token.tokens)),
  html: (token) => el("p", { className: "as-written" }, token.raw.trimEnd()),
  code: ({ text, lang }) => codeBlock(text, lang ?? ""),
  blockquote: (token, outline) => el("blockquote", {}, ...blocks(token.tokens, outline)),
  heading,
  list,
  table,
  blockMaths: ({ text }) => el("div", {
    className: "wide-part", tabIndex: 0, attributes: { role: "group", "aria-label": "Formula" },
  }, maths(text, { display: true })),
};

const INLINE = {
  br: () => el("br"),
  codespan: ({ text }) => el("code", {}, text),
  strong: (token) => el("strong", {}, ...inline(token.tokens)),
  em: (token) => el("em", {}, ...inline(token.tokens)),
  del: (token) => el("del", {}, ...inline(token.tokens)),
  escape: ({ text }) => text,
  text: (token) => (token.tokens ? inline(token.tokens) : [decoded(token.text)]),
  // The one tag that models write where Markdown has no other way: in the cells of tables.
  html: ({ raw }) => (/^<br\s*\/?>$/i.test(raw) ? el("br") : raw),
  link,
  image: ({ href, text, title, raw }) => link({
    href, title, raw, tokens: [{ type: "text", text: `Image: ${text || href}` }],
  }),
  checkbox: ({ checked }) => el("input", {
    type: "checkbox", checked, disabled: true, ariaLabel: checked ? "Done" : "To do",
  }),
  inlineMaths: ({ text }) => maths(text),
};

function blocks(tokens, outline) {
  return tokens.map((token) => blockElement(token, outline)).filter(Boolean);
}

/** Elements and texts of inline tokens. */
function inline(tokens = []) {
  return tokens.flatMap((token) => (INLINE[token.type] ?? (({ raw }) => raw))(token));
}

/** Text in tight list items, and what only stands inline. */
function inlineParagraph(token) {
  return el("span", {}, ...inline([token]));
}

function heading({ depth, tokens }, outline) {
  outline.level = Math.min(depth + 2, outline.level + 1, 6);
  return el(`h${outline.level}`, { dataset: { depth } }, ...inline(tokens));
}

function list({ ordered, start, items }, outline) {
  const made = items.map((item) => el("li", { className: item.task ? "task" : "" },
    ...blocks(item.tokens, outline)));
  return ordered ? el("ol", { start: Number(start) }, ...made) : el("ul", {}, ...made);
}

function table({ header, rows }) {
  const cell = ({ tokens, align }, tag) => {
    const made = el(tag, tag === "th" ? { scope: "col" } : {}, ...inline(tokens));
    if (align) made.dataset.align = align;
    return made;
  };
  const row = (cells, tag) => el("tr", {}, ...cells.map((each) => cell(each, tag)));
  return el("div", {
    className: "wide-part", tabIndex: 0, attributes: { role: "group", "aria-label": "Table" },
  }, el("table", {}, el("thead", {}, row(header, "th")),
    el("tbody", {}, ...rows.map((cells) => row(cells, "td")))));
}

/** A link that tells where it leads and takes nothing there; other schemes stay text. */
function link({ href, title, tokens, raw }) {
  if (!/^(https?:\/\/|mailto:)/i.test(href)) return raw;
  return el("a", {
    href, title: title || href, target: "_blank", rel: "noopener noreferrer nofollow",
    referrerPolicy: "no-referrer",
  }, ...inline(tokens));
}

const ENTITY = /&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][\da-z]{1,30});/gi;

/** Text with its character references resolved; a parser of its own reads one reference at a time. */
function decoded(text) {
  return text.replace(ENTITY, (reference) =>
    new DOMParser().parseFromString(`<p>${reference}`, "text/html").body.textContent);
}
