// cli/access/private_file.h: writes files with secrets. Thread: any.
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom::client {

// Puts a file with this text in the place of `path`, readable by this user alone (an existing file
// keeps its mode). A reader sees the old text or the new one. INVALID_ARGUMENT names the file.
absl::Status WritePrivateFile(const std::string& path, std::string_view text);

}  // namespace fathom::client
