// From logprobs on the wire to spans: stretches of the answer's text, each with its tokens.

const encoder = new TextEncoder();

/** Tokens of a chat chunk's logprobs, as {bytes, logprob, top: [[text, logprob], …]}. */
export function chatTokens(logprobs) {
  return (logprobs?.content ?? []).map((token) => ({
    bytes: token.bytes,
    logprob: token.logprob,
    top: token.top_logprobs.map((other) => [other.token, other.logprob]),
  }));
}

/** Tokens of a completion chunk's logprobs, in the same form. */
export function completionTokens(logprobs) {
  return (logprobs?.tokens ?? []).map((text, index) => ({
    bytes: legacyBytes(text),
    logprob: logprobs.token_logprobs[index],
    top: ranked(logprobs.top_logprobs[index]),
  }));
}

/** Alternatives by text, most probable first: objects put keys that look like numbers in front. */
export function ranked(alternatives) {
  return Object.entries(alternatives ?? {})
    .map(([text, logprob]) => [legacyText(text), logprob])
    .sort((one, other) => other[1] - one[1]);
}

/** Part of a character comes as `bytes:\xe2\x80`. */
function legacyBytes(text) {
  if (!text.startsWith("bytes:\\x")) return [...encoder.encode(text)];
  return text.slice(6).split("\\x").slice(1).map((digits) => parseInt(digits, 16));
}

function legacyText(text) {
  return text.startsWith("bytes:\\x") ? text.slice(6) : text;
}

/**
 * Cuts `text` into spans {text, tokens} as its tokens have it.
 *
 * A character of several tokens is one span, and so is text that its tokens do not spell (white
 * space was stripped, or a marker taken out).
 */
export function spansOf(text, tokens) {
  const bytes = encoder.encode(text);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const spans = [];
  let position = 0;
  let start = 0;
  let pending = [];
  for (const token of tokens) {
    const matches = token.bytes.every((byte, index) => bytes[position + index] === byte);
    if (!matches) return whole(text, tokens);
    position += token.bytes.length;
    pending.push(plain(token));
    const insideCharacter = (bytes[position] & 0xc0) === 0x80;
    if (insideCharacter) continue;
    spans.push({ text: decoder.decode(bytes.subarray(start, position)), tokens: pending });
    start = position;
    pending = [];
  }
  if (position !== bytes.length || pending.length) return whole(text, tokens);
  return spans;
}

function whole(text, tokens) {
  return text ? [{ text, tokens: tokens.map(plain) }] : [];
}

function plain({ bytes, logprob, top }) {
  return { text: pieceText(bytes), logprob, top };
}

/** A token's text; a part of a character as its bytes. */
function pieceText(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes));
  } catch {
    return bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  }
}
