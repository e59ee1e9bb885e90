// What React Native has and a page has not: a router by the address, and alerts that do not block.
import { useSyncExternalStore } from "react";

function listen(changed) {
  addEventListener("hashchange", changed);
  return () => removeEventListener("hashchange", changed);
}

/** The room that the address names. */
export const useRoute = () => useSyncExternalStore(listen, () => decodeURIComponent(location.hash.slice(1)));

export const router = {
  push: (roomId) => (location.hash = roomId),
  back: () => history.back(),
};

export const Alert = {
  alert(title, message) {
    const box = document.getElementById("alert");
    box.querySelector("h2").textContent = title;
    box.querySelector("p").textContent = message;
    box.showModal();
  },
};

export const AlertBox = () => (
  <dialog id="alert" aria-labelledby="alert-title">
    <form method="dialog">
      <h2 id="alert-title" />
      <p />
      <button>OK</button>
    </form>
  </dialog>
);
