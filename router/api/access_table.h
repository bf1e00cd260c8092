// router/api/access_table.h: what each route of HTTP and each method of gRPC asks of its caller. A
// route or method without a row is refused to everybody, so a new one needs a row. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace fathom::router {

enum class Access : uint8_t {
  kOpen,    // Needs no key: liveness and readiness.
  kAnyKey,  // A valid key, whatever its permissions are.
  kInfer,   // A key with this permission (common/api_key.h).
  kMetrics,
  kAdmin,
  kNobody,  // Has no row.
};

struct AccessRow {
  std::string_view route;  // "POST /v1/completions", or the path of a gRPC method.
  Access access;
};

std::span<const AccessRow> AccessTable();

// `route`: as http::Route::name has it ("GET /v1/models/" for all paths below), or a gRPC method.
Access AccessOf(std::string_view route);

}  // namespace fathom::router
