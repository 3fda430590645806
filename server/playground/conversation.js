// A conversation as data: the turns, the versions of each answer, and which of them are shown.

const NAME_LENGTH = 60;

/** A name that no other thing has; crypto.randomUUID exists only with TLS or on this machine. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * An empty conversation of two panes.
 *
 * `turns` is a tree: each names its `parent`, null for a first one, and which versions of the parent's
 * answers it comes `after`. `chosen` has the id of the turn that is shown below a parent ("" for the
 * first), if it comes after what is shown of that. `raw` holds the completions of raw mode.
 */
export function newConversation() {
  const now = Date.now();
  return {
    id: newId(), name: "", created: now, updated: now,
    mode: "chat", draft: "", text: "", images: [],
    isLinked: true, hasSecond: true, panes: [newPane(), newPane()],
    turns: [], chosen: {}, raw: newTurn(null, null),
  };
}

/** `settings` are null as long as they never differed from the other pane's. */
function newPane() {
  return { model: "", settings: null };
}

/**
 * A turn without answers; `prompt` is null where results of tools take its place.
 *
 * `after` has the ids of the answers that it follows, one for each pane, null where there was none.
 */
export function newTurn(parent, prompt, images = [], after = [null, null]) {
  return { id: newId(), parent, after, prompt, images, answers: [[], []], shown: [0, 0] };
}

/** An image of a data URI. */
export function newImage(url) {
  return { id: newId(), url };
}

/**
 * An answer before its first token.
 *
 * `source` is what gives it, {model, api, settings}, and the `view` it is shown in; `prompt` is the text
 * that a completion continues. `finish` is null until it ends.
 */
export function newAnswer(source, prompt = "") {
  return {
    id: newId(), ...source, prompt, content: "", reasoning: "", signature: "", calls: [], spans: [],
    finish: null, error: null, notes: [], figures: {},
  };
}

/** A call of a tool before its arguments; `result` is what the person types. */
export function newCall({ id, name, kind }) {
  return { id, name, kind: kind === "custom" ? kind : "function", arguments: "", result: "" };
}

/** The turns that are shown, first to last. */
export function pathOf({ turns, chosen }) {
  const below = Map.groupBy(turns, ({ parent }) => parent);
  const path = [];
  for (;;) {
    const above = path.at(-1);
    const branches = following(below.get(above?.id ?? null) ?? [], above);
    const turn = branches.find(({ id }) => id === chosen[above?.id ?? ""]) ?? branches.at(-1);
    if (!turn) return path;
    path.push(turn);
  }
}

/** Those of `turns`, all below `above`, that come after the versions of its answers that are shown. */
function following(turns, above) {
  return turns.filter(({ after }) => !above || above.answers.every((versions, pane) => {
    // What an earlier page kept does not say after which; and a failed answer gives way to another.
    const version = versions.find(({ id }) => id === after?.[pane]);
    return !version || version === shownAnswer(above, pane);
  }));
}

/** The turns that begin other branches at the place of `turn`, itself included. */
export function branchesOf({ turns }, { parent }) {
  const above = turns.find(({ id }) => id === parent);
  return following(turns.filter((turn) => turn.parent === parent), above);
}

/** Show the branch of `turn`. */
export function chooseBranch({ chosen }, turn) {
  chosen[turn.parent ?? ""] = turn.id;
}

/** Add a turn below `parent`, a turn or null, as its answers are shown; and show it. */
export function addTurn(conversation, parent, prompt, images) {
  const after = [0, 1].map((pane) => shownAnswer(parent, pane)?.id ?? null);
  const turn = newTurn(parent?.id ?? null, prompt, images, after);
  conversation.turns.push(turn);
  chooseBranch(conversation, turn);
  return turn;
}

/** Take away `turn` and all that follows it; in the place of a shown one, a branch beside it is shown. */
export function removeTurn(conversation, turn) {
  const gone = new Set([turn.id]);
  // Parents come before what follows them.
  for (const { id, parent } of conversation.turns) if (gone.has(parent)) gone.add(id);
  const branches = branchesOf(conversation, turn);
  const place = branches.indexOf(turn);
  const next = place < 0 ? null : branches[place - 1] ?? branches[place + 1];
  conversation.turns = conversation.turns.filter(({ id }) => !gone.has(id));
  for (const id of gone) delete conversation.chosen[id];
  if (next) chooseBranch(conversation, next);
  else if (conversation.chosen[turn.parent ?? ""] === turn.id) delete conversation.chosen[turn.parent ?? ""];
}

/** The version of a pane's answer that is shown, if there is one. */
export function shownAnswer(turn, pane) {
  return turn?.answers[pane][turn.shown[pane]];
}

/** Add a version of a pane's answer and show it. */
export function addAnswer(turn, pane, answer) {
  turn.answers[pane].push(answer);
  turn.shown[pane] = turn.answers[pane].length - 1;
}

/** Put `answer` in the place of the version of a pane's answer that is shown. */
export function replaceAnswer(turn, pane, answer) {
  turn.answers[pane][turn.shown[pane]] = answer;
}

/** Take away the version of a pane's answer that is shown, and all that follows it. */
export function removeAnswer(conversation, turn, pane) {
  const { id } = shownAnswer(turn, pane);
  const follow = conversation.turns.filter((each) => each.parent === turn.id && each.after?.[pane] === id);
  for (const each of follow) removeTurn(conversation, each);
  turn.answers[pane].splice(turn.shown[pane], 1);
  turn.shown[pane] = Math.max(0, turn.shown[pane] - 1);
}

/** Whether results of a pane's calls in `turn`, which is on the `path`, are yet to be sent. */
export function awaitsResults(path, turn, pane) {
  const last = path.at(-1);
  // The other pane's may have been sent before.
  const isBegun = last.parent === turn.id && last.prompt === null && !shownAnswer(last, pane);
  return shownAnswer(turn, pane).calls.length > 0 && (last === turn || isBegun);
}

/** Whether all results of an answer's calls were typed. */
export function hasResults(answer) {
  return Boolean(answer?.calls.length) && answer.calls.every(({ result }) => result.trim());
}

/** All answers of all branches and panes. */
export function allAnswers({ turns, raw }) {
  return [...turns, raw].flatMap((turn) => turn.answers.flat());
}

/** All images, the draft's included. */
export function allImages({ turns, images }) {
  return [...turns.flatMap((turn) => turn.images), ...images];
}

/** The settings of a pane. */
export function settingsOf({ panes, isLinked }, index) {
  return (isLinked ? null : panes[index].settings) ?? panes[0].settings;
}

/** Whether there is anything to send that was not sent yet. */
export function hasDraft({ draft, images }) {
  return draft.trim() !== "" || images.length > 0;
}

/** Whether nothing in it is worth keeping. */
export function isBlank(conversation) {
  return !conversation.turns.length && !conversation.name && !conversation.text
    && !conversation.raw.answers.flat().length && !hasDraft(conversation);
}

/** Its name: the one it was given, or the first words of it. */
export function titleOf({ name, turns, draft, text }) {
  if (name) return name;
  const said = [...turns.map(({ prompt }) => prompt), draft, text].find((each) => each?.trim());
  const words = (said ?? "").trim().replace(/\s+/g, " ");
  if (words.length <= NAME_LENGTH) return words || (turns.length ? "Image" : "New conversation");
  return `${words.slice(0, NAME_LENGTH).replace(/\s\S*$/, "")}…`;
}
