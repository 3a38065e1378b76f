#include <opsin/error.h>

namespace opsin {

// The key functions: they give each class one home, so that `catch` works across shared libraries.
Error::~Error() = default;
ShapeError::~ShapeError() = default;
ValueError::~ValueError() = default;
TypeError::~TypeError() = default;
IndexError::~IndexError() = default;
OutOfMemoryError::~OutOfMemoryError() = default;
FileError::~FileError() = default;

}  // namespace opsin
