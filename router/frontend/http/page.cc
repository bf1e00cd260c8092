#include "router/frontend/http/page.h"

#include <string>
#include <string_view>
#include <utility>

#include "router/frontend/http/cluster_json.h"
#include "router/frontend/http/json_writer.h"
#include "router/frontend/http/page/page_html.h"

namespace fathom::router {
namespace {

// Requests of each kind that the page shows.
constexpr size_t kShown = 30;

// Scripts and styles are in the page itself. It loads nothing, and nobody may show it in a frame.
constexpr char kPolicy[] =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src "
    "'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

http::Response JsonOf(JsonWriter* json) {
  return {200, "application/json", json->Take() + "\n", {{"Cache-Control", "no-store"}}};
}

}  // namespace

void AddPageRoutes(const InferenceApi* api,
                   std::function<CallContext(const http::Request& request)> context,
                   http::Routes* routes) {
  routes->Add("GET", "/", [](const http::Request&) {
    return http::Response{200,
                          "text/html; charset=utf-8",
                          std::string(kPageHtml),
                          {{"Content-Security-Policy", kPolicy},
                           {"X-Content-Type-Options", "nosniff"},
                           {"Referrer-Policy", "no-referrer"},
                           {"Cache-Control", "no-cache"}}};
  });
  routes->Add("GET", "/cluster/status", [api](const http::Request&) {
    JsonWriter json;
    WriteStatus(api->GetStatus(), &json);
    return JsonOf(&json);
  });
  routes->Add("GET", "/cluster/requests",
              [api, context = std::move(context)](const http::Request& request) {
                JsonWriter json;
                WriteRequests(api->Recent(context(request), kShown), &json);
                return JsonOf(&json);
              });
}

}  // namespace fathom::router
