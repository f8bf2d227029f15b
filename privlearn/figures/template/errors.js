// Everything that goes wrong on the page, for the test that opens it: <html data-errors="[...]">.
{
  const errors = [];
  const note = (text) => {
    errors.push(String(text));
    document.documentElement.dataset.errors = JSON.stringify(errors);
  };
  document.documentElement.dataset.errors = "[]";
  window.addEventListener("error", (event) => note(event.message));
  window.addEventListener("unhandledrejection", (event) => note(event.reason));
  window.addEventListener("securitypolicyviolation", (event) => note(`blocked: ${event.blockedURI}`));
  const report = console.error;
  console.error = (...words) => {
    note(words.join(" "));
    report.apply(console, words);
  };
}
