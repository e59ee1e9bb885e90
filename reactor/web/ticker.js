// A worker whose clock goes on in a hidden tab, where a page's own timers come once a minute or not at all.
setInterval(() => postMessage(null), 1000);
