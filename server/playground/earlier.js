// Conversations as earlier pages kept them.

/** A conversation whose turns may have had one place for both panes, with one for each. */
export function withPlaces(conversation) {
  const { turns, chosen } = conversation;
  if (Array.isArray(chosen)) return conversation;
  return {
    ...conversation,
    chosen: [{ ...chosen }, { ...chosen }],
    turns: turns.map(({ parent, after, ...turn }) => ({
      ...turn, places: [0, 1].map((pane) => ({ parent, after: after?.[pane] ?? null })),
    })),
  };
}
