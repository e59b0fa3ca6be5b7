// Addresses of pages. A page is an address, so that it can be kept, sent and reloaded:
//   /                          overview
//   /hosts/HOST[/VM[/TAB]]     the VMs of a host; VM by UUID
//   /settings[/ROOM]           this host, its peers, who may do what, what happened

/** @typedef {{page: string, host?: string, vm?: string, tab?: string, room?: string}} Route */

/** @returns {Route} */
export function current() {
  const [first, ...rest] = parts();
  if (first === "hosts" && rest[0])
    return { page: "vms", host: rest[0], vm: rest[1], tab: rest[2] ?? "summary" };
  if (first === "settings") return { page: "settings", room: rest[0] ?? "host" };
  return { page: "overview" };
}

/** The parts of the address; none of one that nobody can have meant, such as `/hosts/%`. */
function parts() {
  try {
    return location.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return [];
  }
}

/** The address of a route's page. */
export function address(...parts) {
  return `/${parts
    .filter((part) => part !== undefined)
    .map(encodeURIComponent)
    .join("/")}`;
}

/** Goes to an address; `replace` when the step back shall not lead here. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  dispatchEvent(new PopStateEvent("popstate"));
}

/** A click on a link of this console changes the page without loading it anew. */
export function followLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='/']");
    const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (!link || !plain || link.hasAttribute("download") || link.target) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
}
