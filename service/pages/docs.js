// The page of the HTTP interface: the OpenAPI document as text.
import { ask } from "./api.js";
import { byId, element } from "./elements.js";
import { startTheme } from "./theme.js";

const table = (head, rows) => {
  const made = element("table");
  for (const [index, cells] of [head, ...rows].entries()) {
    made.append(element("tr", {}, ...cells.map(cell => element(index ? "td" : "th", { textContent: cell ?? "" }))));
  }
  return made;
};

const kind = schema => schema.type ?? (schema.anyOf ?? []).map(each => each.type).join(" or ");

const describe = (title, route) => {
  const parts = [element("h2", { textContent: title }), element("p", { textContent: route.description ?? route.summary })];
  const parameters = (route.parameters ?? []).map(each => [each.name, kind(each.schema), each.description]);
  if (parameters.length) parts.push(table(["parameter", "type", "meaning"], parameters));
  const bodies = Object.keys(route.requestBody?.content ?? {});
  if (bodies.length) parts.push(element("p", { textContent: `Body: ${bodies.join(" or ")}` }));
  const replies = Object.entries(route.responses).map(([status, reply]) => [status, reply.description]);
  return [...parts, table(["status", "meaning"], replies)];
};

const describeAll = api => {
  const routes = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, route]) => describe(`${method.toUpperCase()} ${path}`, route)),
  );
  const documents = JSON.stringify(api.components.schemas, null, 2);
  return [...routes, element("h2", { textContent: "Documents" }), element("pre", { tabIndex: 0, textContent: documents })];
};

byId("here").textContent = location.origin;
startTheme();
ask("openapi.json").then(
  api => byId("routes").append(...describeAll(api)),
  problem => byId("routes").append(element("p", { textContent: `${problem.title}. ${problem.detail}` })),
);
