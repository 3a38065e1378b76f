// Symbol visibility of the public API. The library is built with hidden visibility; only what carries
// OPSIN_API can be linked against.
#pragma once

#if defined(OPSIN_STATIC)
#define OPSIN_API
#else
#define OPSIN_API __attribute__((visibility("default")))
#endif
