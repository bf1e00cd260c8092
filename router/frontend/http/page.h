// router/frontend/http/page.h: the page at "/", for people: a chat and a live view of the cluster
// (router/frontend/http/page/index.html, which the build embeds), and the JSON that it reads:
//   GET /                    the page; it has no data of its own, so it needs no key
//   GET /cluster/status      the state of the cluster
//   GET /cluster/requests    the caller's requests that run or ended last in this router
// The page asks nobody but its own server (Content-Security-Policy).
#pragma once

#include <functional>

#include "http/routes.h"
#include "router/api/inference_api.h"

namespace fathom::router {

// `context` gives the caller of a request. REQUIRES: `api` outlives the server of the routes.
void AddPageRoutes(const InferenceApi* api,
                   std::function<CallContext(const http::Request& request)> context,
                   http::Routes* routes);

}  // namespace fathom::router
