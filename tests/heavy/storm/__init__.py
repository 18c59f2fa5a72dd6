"""Bad weather for the gateway's core, and somebody who looks at every vector; see heavy.truth.

plan -> houses -> worker -> the gateway's core -> moody
          |                        |
        judge                   weather, around real stores
"""
