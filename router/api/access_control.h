// router/api/access_control.h: decides who may call what, from the keys of the files (--api-keys)
// and the table of routes (access_table.h), and which tenant a caller is. Front ends ask it before
// they read the body or the message of a call.
//
// A key is found by its id, and the hash of the whole key is compared in constant time. A file that
// is replaced is read again; one with a mistake changes nothing. A stream that has begun goes on
// when its key is taken away.
//
// Thread: any may call Admit; Load and Reload belong to the main loop. One mutex guards the table.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "common/api_key.h"
#include "common/status.h"
#include "common/watched_file.h"
#include "router/api/access_table.h"

namespace fathom::router {

// What a call says of its caller, as the client sent it; empty: nothing.
struct CallerKey {
  std::string_view authorization;  // "Bearer fk-..."; has precedence.
  std::string_view api_key;        // The header x-api-key, as Anthropic's clients send it.
};

// Keys by their id.
using KeyTable = std::map<std::string, ApiKeyEntry, std::less<>>;

// The lines of a file; empty lines and lines that begin with "#" count as nothing. INVALID_ARGUMENT
// names `name`, the line, and what is wrong. An id that is there twice is a mistake.
absl::StatusOr<KeyTable> ParseKeyTable(std::string_view text, std::string_view name);

class AccessControl {
 public:
  // Without files every call is admitted, and all are of the tenant "default".
  explicit AccessControl(const std::vector<std::string>& files = {});

  bool on() const { return !files_.empty(); }

  // Reads all files, at the start. NOT_FOUND or INVALID_ARGUMENT: one cannot be used, or has no key
  // that is valid now.
  absl::Status Load(int64_t now_unix_s);
  // The same if a file has changed. An error changes nothing. Returns whether the keys are new.
  absl::StatusOr<bool> Reload(int64_t now_unix_s);

  // The tenant of a caller that may use this route. `route` is empty if there is none, which only a
  // caller with a key learns. UNAUTHENTICATED, PERMISSION_DENIED: with a reason.
  absl::StatusOr<std::string> Admit(const CallerKey& caller, std::string_view route,
                                    int64_t now_unix_s) const;

 private:
  absl::StatusOr<ApiKeyEntry> EntryOf(const CallerKey& caller, int64_t now_unix_s) const;

  std::vector<WatchedFile> files_;
  mutable std::mutex mutex_;  // Guards keys_.
  std::shared_ptr<const KeyTable> keys_ = std::make_shared<KeyTable>();
};

}  // namespace fathom::router
