// The console's only script. Pages are made on the server; what is here sends the
// changes that people make on them to the management API, as JSON, and loads the page
// anew. Text from elsewhere is put into pages by textContent and nothing else.

const byId = (id) => document.getElementById(id);
const api = new URL(document.body.dataset.root + "api/", location.href);

// ---- The API

// A Refused is an answer that is no success.
class Refused extends Error {
  constructor(status, answer) {
    super(answer?.message || answer?.detail || `The service answers with status ${status}.`);
    this.status = status;
    this.fields = answer?.error?.fields || answer?.fields || [];
  }
}

// call sends a request to the API. It returns the data and the ETag of the answer,
// or throws a Refused.
async function call(method, path, body, headers = {}) {
  const init = { method, headers: { ...headers }, cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(new URL(path, api), init);
  } catch {
    throw new Refused(0, { message: "The service did not answer. Load the page anew to see whether it did what you asked for." });
  }
  const answer = await response.json().catch(() => null);
  if (response.status === 401) {
    throw new Refused(401, { message: "You are not signed in any more. Load the page anew to sign in." });
  }
  if (!response.ok || !answer) {
    throw new Refused(response.status, answer);
  }
  return { data: answer.data, etag: response.headers.get("ETag") };
}

// ---- What people are told

// say puts text into an element that screen readers announce.
function say(element, text) {
  element.textContent = text;
}

// item returns an element with text in it.
function item(name, text, className) {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) {
    element.className = className;
  }
  return element;
}

// refresh loads the page anew, or another one, and has it say what was done. The
// text waits in the state of the history entry, which never has anything of a token.
function refresh(text, then) {
  history.replaceState({ done: text }, "", then || location.href);
  location.reload();
}

// greet says what was done before the page was loaded anew.
function greet() {
  const text = history.state?.done;
  if (!text) {
    return;
  }
  history.replaceState(null, "");
  say(byId("done"), text);
  byId("main").focus({ preventScroll: true });
}

// showTimes writes the times of the page as the clocks of whoever looks show them. The
// exact instant stays in the title.
function showTimes() {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const element of document.querySelectorAll("time[datetime]")) {
    const time = new Date(element.dateTime);
    if (!Number.isNaN(time.getTime())) {
      element.textContent = format.format(time);
    }
  }
}

function count(n, one, many) {
  return n === 1 ? `1 ${one}` : `${n.toLocaleString("en")} ${many}`;
}

// ---- Problems with fields

// A field that the API names has an input and an element for its problem, both by id.
function clearProblems(fields) {
  for (const [input, problem] of Object.values(fields)) {
    byId(input).removeAttribute("aria-invalid");
    byId(problem).replaceChildren();
  }
}

// showRefusal shows why the API refused a form: beside the fields that it names, and
// otherwise in an element of its own.
function showRefusal(refused, fields, elsewhere) {
  const rest = [];
  let first;
  for (const { field, message } of refused.fields) {
    const ids = fields[field];
    if (!ids) {
      rest.push(field ? `${field}: ${message}` : message);
      continue;
    }
    const [input, problem] = ids.map(byId);
    input.setAttribute("aria-invalid", "true");
    problem.textContent = `This ${message}.`;
    first ??= input;
  }
  if (rest.length > 0 || !first) {
    say(elsewhere, rest.length > 0 ? rest.join("; ") : refused.message);
  }
  first?.focus();
}

// ---- Dialogs

// once runs work for one press of a button, which does nothing again until it is over.
function once(button, work) {
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-busy") === "true") {
      return;
    }
    button.setAttribute("aria-busy", "true");
    try {
      await work();
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
}

// The token of a new key is in one element, and nowhere else, until Continue: not in an
// address, a form field, which browsers keep, or a storage.
const tokenDialog = byId("token-dialog");
let tokenDone = ""; // what to say afterwards

function showToken(token, done) {
  byId("token").textContent = token;
  tokenDone = done;
  say(byId("token-copied"), "");
  tokenDialog.showModal();
  byId("token-copy").focus();
}

function forgetToken() {
  byId("token").textContent = "";
}

function prepareToken() {
  if (!tokenDialog) {
    return;
  }
  byId("token-copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("token").textContent);
      say(byId("token-copied"), "Copied.");
    } catch {
      getSelection().selectAllChildren(byId("token"));
      say(byId("token-copied"), "This browser does not let pages copy. The key is selected: copy it with the keyboard.");
    }
  });
  // Escape would lose the token by accident.
  tokenDialog.addEventListener("cancel", (event) => event.preventDefault());
  byId("token-continue").addEventListener("click", () => {
    forgetToken();
    tokenDialog.close();
  });
  tokenDialog.addEventListener("close", () => {
    forgetToken();
    if (tokenDone) {
      refresh(tokenDone);
    }
  });
  // Pages that somebody leaves can be kept whole, to be shown again.
  addEventListener("pagehide", () => {
    forgetToken();
    tokenDone = "";
    tokenDialog.close();
  });
}

// confirm asks before work is done, which is what the page cannot undo.
let confirmed = async () => {};

function confirm(title, text, go, work) {
  say(byId("confirm-title"), title);
  say(byId("confirm-text"), text);
  say(byId("confirm-go"), go);
  say(byId("confirm-problem"), "");
  confirmed = work;
  byId("confirm-dialog").showModal();
  byId("confirm-cancel").focus();
}

function prepareConfirm() {
  const dialog = byId("confirm-dialog");
  if (!dialog) {
    return;
  }
  byId("confirm-cancel").addEventListener("click", () => dialog.close());
  once(byId("confirm-go"), async () => {
    try {
      await confirmed();
    } catch (refused) {
      say(byId("confirm-problem"), refused.message);
    }
  });
}

// ---- Keys

const createFields = {
  name: ["create-name", "create-name-problem"],
  dailyLimit: ["create-limit", "create-limit-problem"],
  expiresAt: ["create-end", "create-end-problem"],
};

// ownEnd returns the end that the form asks for, as the API takes it; undefined is none.
function ownEnd(form) {
  const choice = form.elements.end.value;
  if (choice === "") {
    return undefined;
  }
  if (choice !== "date") {
    return new Date(Date.now() + Number(choice) * 86400_000).toISOString();
  }
  const [year, month, day] = form.elements.date.value.split("-").map(Number);
  return new Date(year, month - 1, day + 1).toISOString(); // the day's last midnight
}

function prepareCreate() {
  const form = byId("create-form");
  if (!form) {
    return;
  }
  const { end, date } = form.elements;
  const tomorrow = new Date(Date.now() + 86400_000);
  date.min = [tomorrow.getFullYear(), tomorrow.getMonth() + 1, tomorrow.getDate()].map((n) => String(n).padStart(2, "0")).join("-");
  const choose = () => {
    date.hidden = end.value !== "date";
    date.required = !date.hidden;
  };
  end.addEventListener("change", choose);
  choose();
  submits(form, async () => {
    clearProblems(createFields);
    const body = { name: form.elements.name.value };
    if (form.elements.dailyLimit.value !== "") {
      body.dailyLimit = Number(form.elements.dailyLimit.value);
    }
    const expiresAt = ownEnd(form);
    if (expiresAt) {
      body.expiresAt = expiresAt;
    }
    try {
      const { data } = await call("POST", "v1/api-keys", body);
      form.reset();
      choose();
      showToken(data.key, `“${data.name}” was created.`);
    } catch (refused) {
      showRefusal(refused, createFields, byId("problem"));
    }
  });
}

// submits has work done when a form is sent, once at a time.
function submits(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") {
      return;
    }
    form.setAttribute("aria-busy", "true");
    say(byId("problem"), "");
    say(byId("done"), "");
    try {
      await work();
    } finally {
      form.removeAttribute("aria-busy");
    }
  });
}

let rotating = "";

function prepareRotate() {
  const dialog = byId("rotate-dialog");
  if (!dialog) {
    return;
  }
  byId("rotate-cancel").addEventListener("click", () => dialog.close());
  submits(byId("rotate-form"), async () => {
    say(byId("rotate-problem"), "");
    try {
      const { data } = await call("POST", rotating, { grace: Number(byId("rotate-grace").value) });
      dialog.close();
      showToken(data.key, `“${data.name}” was rotated.`);
    } catch (refused) {
      say(byId("rotate-problem"), refused.message);
    }
  });
}

// actions are what the buttons with data-do do.
const actions = {
  rotate({ path, name }) {
    rotating = path;
    say(byId("rotate-title"), `Rotate “${name}”`);
    say(byId("rotate-problem"), "");
    byId("rotate-dialog").showModal();
    byId("rotate-grace").focus();
  },

  delete({ path, name, then }) {
    confirm(`Delete “${name}”?`, "Requests with it are refused from then on. This cannot be undone.", "Delete", async () => {
      await call("DELETE", path);
      refresh(`“${name}” was deleted.`, then);
    });
  },

  async disable({ path, name, disabled }) {
    const disable = disabled === "true";
    await call("PATCH", path, { disabled: disable });
    refresh(disable ? `“${name}” was disabled.` : `“${name}” was enabled.`);
  },
};

function prepareButtons() {
  for (const button of document.querySelectorAll("button[data-do]")) {
    button.disabled = false;
    once(button, async () => {
      say(byId("problem"), "");
      say(byId("done"), "");
      try {
        await actions[button.dataset.do](button.dataset);
      } catch (refused) {
        say(byId("problem"), refused.message);
      }
    });
  }
}

const limitFields = { dailyLimit: ["limit-number", "limit-number-problem"] };

function prepareLimit() {
  const form = byId("limit-form");
  if (!form) {
    return;
  }
  const { kind, dailyLimit } = form.elements;
  const choose = () => {
    dailyLimit.disabled = kind.value !== "number";
    dailyLimit.required = !dailyLimit.disabled;
  };
  kind.addEventListener("change", choose);
  choose();
  submits(form, async () => {
    clearProblems(limitFields);
    const limit = { default: null, none: -1, number: Number(dailyLimit.value) }[kind.value];
    try {
      await call("PATCH", form.dataset.path, { dailyLimit: limit });
      refresh("The limit was set.");
    } catch (refused) {
      showRefusal(refused, limitFields, byId("problem"));
    }
  });
}

// ---- People

function preparePeople() {
  for (const box of document.querySelectorAll("input[data-do=permit]")) {
    box.disabled = false;
    box.addEventListener("change", async () => {
      const { user, name } = box.dataset;
      const permitted = box.checked;
      say(byId("problem"), "");
      say(byId("done"), "");
      box.disabled = true;
      try {
        await call(permitted ? "PUT" : "DELETE", `v1/org/users/${encodeURIComponent(user)}/token-permission`);
        say(byId("done"), permitted ? `${name} has the permission to use API keys.` : `${name} has no permission to use API keys any more.`);
      } catch (refused) {
        box.checked = !permitted;
        say(byId("problem"), refused.message);
      }
      box.disabled = false;
      box.focus();
    });
  }
}

// ---- Settings

const settingsPath = "v1/org/token-settings";

const units = [[86400, "day", "days"], [3600, "hour", "hours"], [60, "minute", "minutes"], [1, "second", "seconds"]];

function period(seconds) {
  if (seconds === 0) {
    return "never";
  }
  const [unit, one, many] = units.find(([unit]) => seconds % unit === 0);
  return `after ${count(seconds / unit, one, many)}`;
}

// settingsDiffer says what of the settings now is not as before.
function settingsDiffer(before, now) {
  const says = [];
  if (before.restrictedAccessTokens !== now.restrictedAccessTokens) {
    says.push(now.restrictedAccessTokens
      ? "Only chosen people may create and use API keys; before, everybody could."
      : "Everybody may create and use API keys; before, only chosen people could.");
  }
  if (before.apiTokenMaxAge !== now.apiTokenMaxAge) {
    says.push(`Keys expire: ${period(now.apiTokenMaxAge)}; before: ${period(before.apiTokenMaxAge)}.`);
  }
  if (before.apiAllowedIPs.join("\n") !== now.apiAllowedIPs.join("\n")) {
    const from = (lines) => (lines.length === 0 ? "everywhere" : lines.length > 4 ? `a list of ${lines.length} lines` : lines.join(", "));
    says.push(`Keys may be used from: ${from(now.apiAllowedIPs)}; before: ${from(before.apiAllowedIPs)}.`);
  }
  return says;
}

// effects says in sentences what the proposed settings would do: "12 keys of 5 people
// expire now, 3 of them were used today."
function effects(preview) {
  if (preview.changedKeys === 0) {
    return ["No key changes its status."];
  }
  const today = new Date().setHours(0, 0, 0, 0);
  const known = preview.recentlyUsedChangedKeys !== null;
  const ways = [
    ["expired", "expires now", "expire now"],
    ["disabled_by_owner", "is disabled now", "are disabled now"],
    ["active", "works again", "work again"],
  ];
  if (preview.changes.length < preview.changedKeys) { // the list is cut off
    const sentence = `${count(preview.changedKeys, "key", "keys")} of ${count(preview.changedUsers, "person", "people")} change their status`;
    return [known ? `${sentence}, ${preview.recentlyUsedChangedKeys.toLocaleString("en")} of them were used in the last ${preview.days} days.` : `${sentence}.`];
  }
  const sentences = [];
  for (const [status, one, many] of ways) {
    const keys = preview.changes.filter((change) => change.to.status === status);
    if (keys.length === 0) {
      continue;
    }
    const people = new Set(keys.map((key) => key.user)).size;
    const used = keys.filter((key) => key.lastUsedAt && new Date(key.lastUsedAt) >= today).length;
    let sentence = `${count(keys.length, "key", "keys")} of ${count(people, "person", "people")} ${keys.length === 1 ? one : many}`;
    if (known) {
      sentence += keys.length === 1
        ? (used === 1 ? ", and it was used today" : ", and it was not used today")
        : `, ${used === 0 ? "none" : used.toLocaleString("en")} of them ${used === 1 ? "was" : "were"} used today`;
    }
    sentences.push(`${sentence}.`);
  }
  return sentences;
}

// refusedAddresses says which addresses that keys were used from the list refuses.
function refusedAddresses(preview) {
  if (!preview.refusedAddresses) {
    return [];
  }
  const some = preview.addresses.slice(0, 5).map(({ address }) => address).join(", ");
  const more = preview.refusedAddresses > 5 ? " and others" : "";
  return [`${count(preview.refusedAddresses, "address", "addresses")} that keys were used from in the last ${preview.days} days ${preview.refusedAddresses === 1 ? "is" : "are"} refused: ${some}${more}.`];
}

function prepareSettings() {
  const form = byId("settings-form");
  if (!form) {
    return;
  }
  const { age, number, unit, addresses } = form.elements;
  const restricted = byId("restricted");
  const [review, conflict] = [byId("review-dialog"), byId("conflict-dialog")];
  const lines = () => (addresses.value === "" ? [] : addresses.value.split("\n"));

  // What the form was filled with, and what it would be saved as.
  let etag = form.dataset.etag;
  let saved = {
    restrictedAccessTokens: form.dataset.restricted === "true",
    apiTokenMaxAge: Number(form.dataset.age),
    apiAllowedIPs: lines(),
  };
  let proposed;

  const choose = () => {
    byId("custom-age").hidden = age.value !== "custom";
    number.required = age.value === "custom";
    number.disabled = !number.required;
  };
  age.addEventListener("change", choose);
  choose();

  const fields = { apiTokenMaxAge: [age.id, "age-problem"], apiAllowedIPs: [addresses.id, "addresses-problem"] };

  // mark shows which lines of the list are wrong, and selects the first of them.
  const mark = (refused) => {
    const bad = refused.fields.filter(({ field }) => field === "apiAllowedIPs");
    refused.fields = refused.fields.filter(({ field }) => field !== "apiAllowedIPs");
    if (refused.fields.length > 0 || bad.length === 0) {
      showRefusal(refused, fields, byId("problem"));
    }
    if (bad.length === 0) {
      return;
    }
    addresses.setAttribute("aria-invalid", "true");
    const text = lines();
    const select = (line) => {
      const start = text.slice(0, line - 1).reduce((sum, l) => sum + l.length + 1, 0);
      addresses.focus();
      addresses.setSelectionRange(start, start + (text[line - 1] ?? "").length);
      addresses.scrollTop = (addresses.scrollHeight / Math.max(text.length, 1)) * (line - 2);
    };
    byId("addresses-problem").replaceChildren(...bad.map(({ line, message }) => {
      const entry = document.createElement("li");
      if (line) {
        const button = item("button", `Line ${line}`, "link");
        button.type = "button";
        button.addEventListener("click", () => select(line));
        entry.append(button, " ", item("mark", text[line - 1] ?? ""), " ", message.replace(/^line \d+: /, ""));
      } else {
        entry.textContent = message;
      }
      return entry;
    }));
    select(bad[0].line ?? 1);
  };

  submits(form, async () => {
    clearProblems(fields);
    proposed = {
      restrictedAccessTokens: restricted.checked,
      apiTokenMaxAge: age.value === "custom" ? Number(number.value) * Number(unit.value) : Number(age.value),
      apiAllowedIPs: lines(),
    };
    let preview;
    try {
      ({ data: preview } = await call("POST", `${settingsPath}/preview`, proposed));
    } catch (refused) {
      mark(refused);
      return;
    }
    const normal = preview.settings;
    const differences = settingsDiffer(saved, normal);
    if (differences.length === 0) {
      addresses.value = normal.apiAllowedIPs.join("\n");
      say(byId("done"), "There is nothing to update: these are the settings.");
      return;
    }
    byId("review-effects").replaceChildren(...differences.concat(effects(preview), refusedAddresses(preview)).map((text) => item("li", text)));
    const warnings = normal.warnings.map(({ message }) => message);
    if (normal.restrictedAccessTokens && !saved.restrictedAccessTokens) {
      warnings.unshift("From then on only people who are permitted on the page People can create and use API keys. Owners, you included, are not exempt. Nothing is deleted.");
    }
    byId("review-warnings").replaceChildren(...warnings.map((text) => item("p", text, "note warn")));
    byId("review-form").hidden = normal.apiAllowedIPs.length === 0;
    say(byId("review-addresses"), normal.apiAllowedIPs.join("\n"));
    say(byId("review-problem"), "");
    review.showModal();
    byId("review-cancel").focus();
  });

  byId("review-cancel").addEventListener("click", () => review.close());
  once(byId("review-continue"), async () => {
    try {
      await call("PATCH", settingsPath, proposed, { "If-Match": etag });
    } catch (refused) {
      if (refused.status === 409 || refused.status === 412) {
        await explainConflict();
      } else {
        say(byId("review-problem"), refused.message);
      }
      return;
    }
    refresh("The settings were updated.");
  });

  // adopt takes over what somebody else has saved, where the form still has what was
  // saved before: an update undoes nothing that nobody here has touched.
  const adopt = (theirs) => {
    if (proposed.restrictedAccessTokens === saved.restrictedAccessTokens) {
      restricted.checked = theirs.restrictedAccessTokens;
    }
    if (proposed.apiTokenMaxAge === saved.apiTokenMaxAge) {
      age.value = String(theirs.apiTokenMaxAge);
      if (age.value !== String(theirs.apiTokenMaxAge)) { // none of those that are offered
        const [seconds] = units.find(([seconds]) => theirs.apiTokenMaxAge % seconds === 0);
        [age.value, number.value, unit.value] = ["custom", theirs.apiTokenMaxAge / seconds, seconds];
      }
      choose();
    }
    if (proposed.apiAllowedIPs.join("\n") === saved.apiAllowedIPs.join("\n")) {
      addresses.value = theirs.apiAllowedIPs.join("\n");
    }
  };

  // explainConflict shows what somebody else has changed meanwhile, on which an update
  // is based from then on.
  const explainConflict = async () => {
    try {
      const { data, etag: now } = await call("GET", settingsPath);
      const changes = settingsDiffer(saved, data);
      byId("conflict-changes").replaceChildren(...(changes.length > 0 ? changes : ["They were changed, and changed back."]).map((text) => item("li", text)));
      adopt(data);
      [saved, etag] = [data, now];
    } catch (refused) {
      say(byId("review-problem"), refused.message);
      return;
    }
    review.close();
    conflict.showModal();
    byId("conflict-keep").focus();
  };
  byId("conflict-keep").addEventListener("click", () => {
    conflict.close();
    form.requestSubmit();
  });
  byId("conflict-load").addEventListener("click", () => {
    conflict.close();
    form.reset();
    refresh("");
  });
}

// ---- The page

// Without this script nothing can be changed, so pages come with their forms disabled.
for (const fieldset of document.querySelectorAll("form fieldset[disabled]")) {
  fieldset.disabled = false;
}
addEventListener("pageshow", (event) => {
  if (event.persisted) { // as it was left, perhaps by somebody who is signed out now
    location.reload();
  }
});
showTimes();
prepareToken();
prepareConfirm();
prepareCreate();
prepareRotate();
prepareButtons();
prepareLimit();
preparePeople();
prepareSettings();
greet();
document.documentElement.dataset.ready = "";
