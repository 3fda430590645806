// What is not saved when the page goes away, for the same tab when it is loaded again.

const ITEM = "dragoman-unsaved";

/** Keep `records`, or nothing where they are null. */
export function setAside(records) {
  try {
    if (records) sessionStorage.setItem(ITEM, JSON.stringify(records));
    else sessionStorage.removeItem(ITEM);
  } catch {
    // There is no room: what the database still gets done is all there is.
    sessionStorage.removeItem(ITEM);
  }
}

/** What was kept, once; null where nothing was. */
export function takeAside() {
  const kept = sessionStorage.getItem(ITEM);
  sessionStorage.removeItem(ITEM);
  return kept && JSON.parse(kept);
}
