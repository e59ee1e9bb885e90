/** What the hooks and composables for people have in common. */

/** What is shown before anything is watched. @type {import("./people.js").PeopleSnapshot} */
export const NO_PEOPLE = Object.freeze({ status: "idle", error: null, people: Object.freeze([]) });

/** Watch these users in place of the former ones. @param {import("./people.js").People} watched @param {string[]} ids */
export function watchOnly(watched, ids) {
  if (watched.status === "closed") return;
  const gone = [...watched.ids].filter((id) => !ids.includes(id));
  // First those who are new: without any user the connection would be closed.
  watched.add(ids);
  watched.remove(gone);
}
