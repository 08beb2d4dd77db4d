// Refreshes the page in place every 15 s; without JavaScript, <noscript> reloads it instead.
setInterval(async () => {
  if (document.hidden || document.activeElement?.tagName === "INPUT") return; // never under somebody's typing
  try {
    const response = await fetch(location.href);
    if (!response.ok) throw new Error(response.statusText);
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    document.getElementById("live").replaceWith(document.adoptNode(fresh.getElementById("live")));
    document.title = fresh.title;
  } catch {
    document.body.classList.add("offline"); // the style sheet says so
    return;
  }
  document.body.classList.remove("offline");
}, 15000);
