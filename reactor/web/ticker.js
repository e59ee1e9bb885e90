// A worker with a timer that is not delayed in a hidden tab, where a page's own timers run once a minute or never.
setInterval(() => postMessage(null), 1000);
