// router/frontend/http/http_guard.h: the access control of the router (router/api/access_control.h)
// as the guard of an HTTP server (http/routes.h). A refusal is 401 or 403, in the error object of
// the API that the route belongs to.
#pragma once

#include "http/routes.h"
#include "router/api/access_control.h"

namespace fathom::router {

// REQUIRES: `access` outlives the guard.
http::Guard GuardOf(const AccessControl* access);

}  // namespace fathom::router
